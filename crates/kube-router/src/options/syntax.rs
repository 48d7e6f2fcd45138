//! The value syntax of pflag, type by type: what a text after `--flag=` means.
//!
//! Each type reads itself from text (`FromStr`), so that a flag is declared by its type alone. Ranges and the
//! relations between flags are decided by the concern that owns the flag, not here.

use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;

/// A yes-or-no flag in the spellings of Go's `strconv.ParseBool`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Switch(pub(crate) bool);

impl FromStr for Switch {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        go_bool(text).map(Switch).ok_or("neither true nor false")
    }
}

/// Go's `strconv.ParseBool`; `None` for anything it refuses.
pub(crate) fn go_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// An unsigned number that fits `T`, in the notations of Go literals: `16`, `0x10`, `0o20`, `020`, `0b1_0000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Uint<T>(pub(crate) T);

impl<T: TryFrom<u64>> FromStr for Uint<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let number = bgp::asn::parse_go_uint(text).ok_or("not a whole number of zero or more")?;
        let bits = 8 * size_of::<T>();
        T::try_from(number).map(Uint).map_err(|_| format!("does not fit {bits} bits"))
    }
}

/// A network in CIDR notation; bits below the prefix are cleared, as Go does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cidr(pub(crate) IpNet);

impl FromStr for Cidr {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let net: IpNet = text.parse().map_err(|_| format!("{text:?} is not a CIDR such as 10.0.0.0/8"))?;
        Ok(Cidr(net.trunc()))
    }
}

/// One use of a list flag: comma separated, quoted as a CSV record where an item holds a comma. Nothing after the
/// `=` is an empty list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct List<T>(pub(crate) Vec<T>);

/// How one item of a list flag reads.
pub(crate) trait Item: Sized {
    /// Reads one item, spaces included as they stand.
    fn read(text: &str) -> Result<Self, String>;
}

impl Item for Cidr {
    fn read(text: &str) -> Result<Self, String> {
        text.parse()
    }
}

impl Item for IpAddr {
    fn read(text: &str) -> Result<Self, String> {
        text.trim().parse().map_err(|_| format!("{text:?} is not an IP address"))
    }
}

/// pflag reads the numbers of a list as decimals, unlike those of single-number flags.
impl Item for Uint<u32> {
    fn read(text: &str) -> Result<Self, String> {
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let number = digits.then(|| text.parse().ok()).flatten();
        number.map(Uint).ok_or_else(|| format!("{text:?} is not a decimal number that fits 32 bits"))
    }
}

impl<T: Item> FromStr for List<T> {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let items = csv_record(text).ok_or("quotes are not balanced")?;
        items.iter().map(|item| T::read(item)).collect::<Result<_, _>>().map(List)
    }
}

/// The items of all uses of a list flag, in order.
pub(crate) fn items<T>(uses: Vec<List<T>>) -> Vec<T> {
    uses.into_iter().flat_map(|list| list.0).collect()
}

/// Splits the first record of a CSV text; `None` when a quote is out of place. An empty text has no items.
pub(crate) fn csv_record(text: &str) -> Option<Vec<String>> {
    let mut items = Vec::new();
    let Some(mut rest) = text.lines().next() else { return Some(items) };
    loop {
        let (item, tail) = match rest.strip_prefix('"') {
            Some(quoted) => quoted_item(quoted)?,
            None => {
                let (item, tail) = rest.split_at(rest.find(',').unwrap_or(rest.len()));
                (item.to_owned(), tail)
            }
        };
        if item.contains('"') && !rest.starts_with('"') {
            return None;
        }
        items.push(item);
        match tail.strip_prefix(',') {
            Some(next) => rest = next,
            None => return tail.is_empty().then_some(items),
        }
    }
}

/// Reads up to the closing quote; a doubled quote stands for one.
fn quoted_item(text: &str) -> Option<(String, &str)> {
    let mut item = String::new();
    let mut rest = text;
    loop {
        let (before, after) = rest.split_once('"')?;
        item.push_str(before);
        match after.strip_prefix('"') {
            Some(next) => {
                item.push('"');
                rest = next;
            }
            None => return Some((item, after)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn numbers_read_as_go_literals() {
        for (text, number) in [
            ("0", 0u64),
            ("16", 16),
            ("0x10", 16),
            ("0X1f", 31),
            ("0o17", 15),
            ("0b1", 1),
            ("010", 8),
            ("1_0", 10),
        ] {
            assert_eq!(text.parse::<Uint<u64>>().map(|n| n.0), Ok(number), "{text}");
        }
        for text in ["", "-1", "+1", "08", "0x", "1e3", " 1", "1_", "_1", "1__0", "ten"] {
            assert!(text.parse::<Uint<u64>>().is_err(), "{text}");
        }
        assert_eq!("256".parse::<Uint<u8>>(), Err("does not fit 8 bits".to_owned()));
    }

    #[test]
    fn lists_read_as_csv_records() {
        let csv = |text| csv_record(text).map(|items| items.join("|"));
        assert_eq!(csv_record(""), Some(vec![]));
        assert_eq!(csv("a,b"), Some("a|b".into()));
        assert_eq!(csv(",a,"), Some("|a|".into()));
        assert_eq!(csv("\"a,b\",c"), Some("a,b|c".into()));
        assert_eq!(csv("\"a\"\"b\""), Some("a\"b".into()));
        assert_eq!(csv("a\"b"), None);
        assert_eq!(csv("\"a"), None);
        assert_eq!(csv("\"a\"b"), None);
        assert_eq!(csv("a\nb"), Some("a".into()));
    }

    #[test]
    fn networks_lose_their_host_bits() {
        assert_eq!("10.1.2.3/8".parse::<Cidr>().map(|c| c.0.to_string()), Ok("10.0.0.0/8".into()));
        assert_eq!("fd00::1/64".parse::<Cidr>().map(|c| c.0.to_string()), Ok("fd00::/64".into()));
        assert!("10.1.2.3".parse::<Cidr>().is_err());
    }

    proptest! {
        #[test]
        fn quoting_any_items_reads_them_back(items in prop::collection::vec("[a-z,\" ]{0,6}", 1..5)) {
            let text = items.iter().map(|i| format!("\"{}\"", i.replace('"', "\"\""))).collect::<Vec<_>>().join(",");
            prop_assert_eq!(csv_record(&text), Some(items));
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            let _ = csv_record(&text);
            let _ = text.parse::<Uint<u16>>();
        }
    }
}
