//! The text of `--help`: every flag with its type and default, in the groups of the concerns.

use std::fmt::Write;

use clap::{Arg, Command};

use crate::commands;

const COLUMN: usize = 46;
const WIDTH: usize = 110;

/// The usage text, ending in a newline. Flags without a help text are left out.
pub(super) fn usage(command: &Command) -> String {
    let mut text = String::from("Usage: kube-router [flags]\n       kube-router COMMAND\n\n");
    text.push_str(&commands::list());
    let mut heading = "";
    for arg in command.get_arguments().filter(|arg| !arg.is_positional()) {
        let group = arg.get_help_heading().unwrap_or_default();
        if group != heading {
            heading = group;
            // Writing to a String cannot fail.
            let _ = write!(text, "\n{heading}:\n");
        }
        flag(&mut text, arg);
    }
    text
}

fn flag(text: &mut String, arg: &Arg) {
    let short = arg.get_short().map_or("    ".to_owned(), |short| format!("-{short}, "));
    let kind = arg.get_value_names().and_then(|names| names.first()).map_or("", |name| name.as_str());
    let value = if kind == "bool" { "[=bool]".to_owned() } else { format!(" {kind}") };
    let left = format!("  {short}--{}{value}", arg.get_long().unwrap_or_default());
    let help = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let help = format!("{help} (default {})", default(arg));
    let _ = write!(text, "{left:<COLUMN$}");
    let mut column = left.len().max(COLUMN);
    if left.len() >= COLUMN {
        text.push_str("  ");
        column += 2;
    }
    for (position, word) in help.split(' ').enumerate() {
        if column + word.len() >= WIDTH {
            let _ = write!(text, "\n{:COLUMN$}", "");
            column = COLUMN;
        } else if position > 0 {
            text.push(' ');
            column += 1;
        }
        text.push_str(word);
        column += word.len();
    }
    text.push('\n');
}

/// The default as it would be written on the command line; lists in brackets, empty texts as `""`.
pub(super) fn default(arg: &Arg) -> String {
    let defaults: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
    let joined = defaults.join(",");
    if matches!(arg.get_action(), clap::ArgAction::Append) {
        format!("[{joined}]")
    } else if joined.is_empty() {
        "\"\"".to_owned()
    } else {
        joined
    }
}
