//! Durations as Go writes them (`1m30s`, `1.5h`, `-2ms`), because that is what every manifest holds.
//!
//! Decided here: which texts are durations and how one is shown again. Which durations a flag accepts is decided
//! by the flag's own concern. Source: Go `time.ParseDuration` and `time.Duration.String`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// A signed span of time in nanoseconds, ±292 years: the range and precision of Go's `time.Duration`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GoDuration(i64);

/// Why a text is not a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DurationError {
    /// Empty, or without digits where digits are needed.
    #[error("not a duration (write it like 1m30s)")]
    Malformed,
    /// Digits without a unit, such as `30`.
    #[error("a unit is missing (write it like 30s or 1m30s)")]
    NoUnit,
    /// A unit other than ns, us, µs, ms, s, m, h.
    #[error("unknown unit (units are h, m, s, ms, us, ns)")]
    UnknownUnit,
    /// More than 2^63 nanoseconds.
    #[error("longer than 292 years")]
    TooLong,
}

impl GoDuration {
    /// The span of `nanos` nanoseconds.
    pub const fn from_nanos(nanos: i64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds, negative for spans before zero.
    pub const fn as_nanos(self) -> i64 {
        self.0
    }

    /// The span as a `std` duration; `None` when negative.
    pub fn to_std(self) -> Option<Duration> {
        u64::try_from(self.0).ok().map(Duration::from_nanos)
    }
}

impl FromStr for GoDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        let (negative, mut rest) = match text.as_bytes().first() {
            Some(b'-') => (true, text.get(1..).unwrap_or_default()),
            Some(b'+') => (false, text.get(1..).unwrap_or_default()),
            _ => (false, text),
        };
        if rest == "0" {
            return Ok(Self(0));
        }
        if rest.is_empty() {
            return Err(DurationError::Malformed);
        }
        // The sum is kept as a magnitude, because -2^63 ns is a duration and +2^63 ns is not.
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (nanos, tail) = component(rest)?;
            total = total.checked_add(nanos).filter(|sum| *sum <= 1 << 63).ok_or(DurationError::TooLong)?;
            rest = tail;
        }
        match (negative, i64::try_from(total)) {
            (false, Ok(nanos)) => Ok(Self(nanos)),
            (true, _) => Ok(Self(0i64.wrapping_sub_unsigned(total))),
            (false, Err(_)) => Err(DurationError::TooLong),
        }
    }
}

/// Reads one `12.5ms` from the front of `text`: its nanoseconds and what follows.
fn component(text: &str) -> Result<(u64, &str), DurationError> {
    let (whole, rest) = split_digits(text);
    let (fraction, rest) = rest.strip_prefix('.').map_or(("", rest), split_digits);
    if whole.is_empty() && fraction.is_empty() {
        return Err(DurationError::Malformed);
    }
    let end = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
    let (unit, tail) = rest.split_at(end);
    let unit = match unit {
        "" => return Err(DurationError::NoUnit),
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => NANOS_PER_SECOND,
        "m" => 60 * NANOS_PER_SECOND,
        "h" => 3_600 * NANOS_PER_SECOND,
        _ => return Err(DurationError::UnknownUnit),
    };
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().map_err(|_| DurationError::TooLong)? };
    let whole = whole.checked_mul(unit).ok_or(DurationError::TooLong)?;
    let nanos = whole.checked_add(fraction_of(fraction, unit)).ok_or(DurationError::TooLong)?;
    Ok((nanos, tail))
}

/// `0.<digits>` of `unit`, cut to whole nanoseconds; digits beyond what an `u64` can weigh add nothing.
fn fraction_of(digits: &str, unit: u64) -> u64 {
    let mut sum: u128 = 0;
    let mut scale: u128 = 1;
    for digit in digits.bytes().take(18) {
        sum = sum * 10 + u128::from(digit - b'0');
        scale *= 10;
    }
    u64::try_from(sum * u128::from(unit) / scale).unwrap_or(u64::MAX)
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

impl fmt::Display for GoDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanos = self.0.unsigned_abs();
        let sign = if self.0 < 0 { "-" } else { "" };
        match nanos {
            0 => f.write_str("0s"),
            1..1_000 => write!(f, "{sign}{nanos}ns"),
            1_000..1_000_000 => write!(f, "{sign}{}µs", Decimal(nanos, 1_000)),
            1_000_000..NANOS_PER_SECOND => write!(f, "{sign}{}ms", Decimal(nanos, 1_000_000)),
            _ => {
                let (minutes, below) = (nanos / (60 * NANOS_PER_SECOND), nanos % (60 * NANOS_PER_SECOND));
                let seconds = Decimal(below, NANOS_PER_SECOND);
                match (minutes / 60, minutes % 60) {
                    (0, 0) => write!(f, "{sign}{seconds}s"),
                    (0, minutes) => write!(f, "{sign}{minutes}m{seconds}s"),
                    (hours, minutes) => write!(f, "{sign}{hours}h{minutes}m{seconds}s"),
                }
            }
        }
    }
}

/// `.0 / .1` (a power of ten) as a decimal without trailing zeros.
struct Decimal(u64, u64);

impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0 / self.1, self.0 % self.1);
        if rest == 0 {
            return write!(f, "{whole}");
        }
        let width = self.1.ilog10() as usize;
        let digits = format!("{rest:0width$}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Inputs and results as Go 1.22 gives them.
    #[test]
    fn reads_what_go_reads() {
        let minute = 60_000_000_000i64;
        for (text, nanos) in [
            ("0", 0),
            ("-0", 0),
            ("5s", 5_000_000_000),
            ("1m30s", 90_000_000_000),
            ("1m1m", 2 * minute),
            ("-1.5h", -90 * minute),
            ("+5m", 5 * minute),
            (".5s", 500_000_000),
            ("1.s", 1_000_000_000),
            ("1µs", 1_000),
            ("1μs", 1_000),
            ("10us", 10_000),
            ("2562047h47m16.854775807s", i64::MAX),
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
            ("0.3333333333333333333h", 1_199_999_999_999),
            ("39h9m14.425s", 140_954_425_000_000),
        ] {
            assert_eq!(text.parse(), Ok(GoDuration(nanos)), "{text}");
        }
    }

    #[test]
    fn refuses_what_go_refuses() {
        use DurationError::*;
        for (text, error) in [
            ("", Malformed),
            ("-", Malformed),
            ("s", Malformed),
            (".", Malformed),
            (".s", Malformed),
            ("30", NoUnit),
            ("3000000h", TooLong),
            ("9223372036854775808ns", TooLong),
            ("99999999999999999999s", TooLong),
            ("1d", UnknownUnit),
            ("1 m", UnknownUnit),
            ("1m ", UnknownUnit),
            ("1M", UnknownUnit),
            ("--1s", Malformed),
        ] {
            assert_eq!(text.parse::<GoDuration>(), Err(error), "{text}");
        }
    }

    #[test]
    fn shows_what_go_shows() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_100, "1.1µs"),
            (2_200_000, "2.2ms"),
            (3_300_000_000, "3.3s"),
            (60_000_000_000, "1m0s"),
            (90_000_000_000, "1m30s"),
            (-245_000_000_000, "-4m5s"),
            (5 * 3_600_000_000_000 + 5_005_000_000, "5h0m5.005s"),
            (i64::MIN, "-2562047h47m16.854775808s"),
        ] {
            assert_eq!(GoDuration(nanos).to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_reads_back(nanos: i64) {
            prop_assert_eq!(GoDuration(nanos).to_string().parse(), Ok(GoDuration(nanos)));
        }

        #[test]
        fn no_text_panics(text in "[-+0-9.hmsnuµ ]{0,24}|\\PC*") {
            let _ = text.parse::<GoDuration>();
        }
    }
}
