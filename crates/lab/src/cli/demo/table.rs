//! The demo's result: what was asked, by which way in, who answered how often.

use std::collections::BTreeMap;

use comfy_table::Table;

/// One way into one port of one service.
pub(super) struct Row {
    /// `namespace/name:port/protocol`.
    pub(super) service: String,
    /// `ClusterIP from a pod on node-1`, `NodePort from outside`, …
    pub(super) way: String,
    /// Backends by name, with the number of answers.
    pub(super) answers: BTreeMap<String, usize>,
    /// What did not hold, in one line; empty when all did.
    pub(super) wrong: String,
}

/// Prints the table; says whether every row held.
pub(super) fn print(rows: &[Row]) -> bool {
    let mut table = Table::new();
    table.load_preset(comfy_table::presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(["service", "way in", "answered by", ""]);
    for row in rows {
        let answers: Vec<String> =
            row.answers.iter().map(|(name, count)| format!("{name} ×{count}")).collect();
        let verdict = if row.wrong.is_empty() { "ok" } else { &row.wrong };
        table.add_row([row.service.as_str(), &row.way, &answers.join(", "), verdict]);
    }
    println!("{table}");
    rows.iter().all(|row| row.wrong.is_empty())
}
