//! Values in a scenario file: times with units, shares, and some of the nodes.

use std::fmt;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};

/// A time with its unit, such as `"90s"` or `"3min"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time(pub Duration);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Time;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a time with its unit, such as \"200ms\", \"90s\" or \"3min\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Time, E> {
                let time = humantime::parse_duration(text).map_err(|why| {
                    E::custom(format_args!(
                        "{text:?} is no time such as \"200ms\", \"90s\" or \"3min\": {why}"
                    ))
                })?;
                if time > LONGEST {
                    return Err(E::custom(format_args!("{text:?} is more than 30 days")));
                }
                Ok(Time(time))
            }
        }
        from.deserialize_str(Reader)
    }
}

/// The longest time that a file may name: far beyond what anybody waits for, and far from overflow.
const LONGEST: Duration = Duration::from_secs(30 * 24 * 3600);

/// A share from 0 to 100 %, such as `"2.5%"`, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(pub u32);

impl Share {
    /// Reads `"2.5%"`, to a tenth of a percent.
    fn parse(text: &str) -> Result<Self, String> {
        let refuse = || format!("{text:?} is no share such as \"25%\" or \"0.5%\"");
        let number = text.strip_suffix('%').ok_or_else(refuse)?;
        let percent: f64 = number.trim().parse().map_err(|_| refuse())?;
        if !(0.0..=100.0).contains(&percent) {
            return Err(format!("{text:?} is not from \"0%\" to \"100%\""));
        }
        let permille = (percent * 10.0).round();
        if (permille - percent * 10.0).abs() > 1e-6 {
            return Err(format!("{text:?} is finer than a tenth of a percent"));
        }
        Ok(Self(permille as u32))
    }
}

impl<'de> Deserialize<'de> for Share {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl Visitor<'_> for Reader {
            type Value = Share;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a share such as \"25%\"")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Share, E> {
                Share::parse(text).map_err(E::custom)
            }
        }
        from.deserialize_str(Reader)
    }
}

/// Some of the nodes. Those that are not named are drawn from the seed, and never node 0, through
/// which the others start.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Pick {
    /// So many.
    Count(usize),
    /// This share of all, at least one.
    Share(Share),
    /// These.
    These(Vec<usize>),
}

impl Pick {
    /// How many of `nodes` these are.
    #[must_use]
    pub fn len(&self, nodes: usize) -> usize {
        match self {
            Self::Count(count) => *count,
            Self::Share(share) => {
                (nodes * share.0 as usize).div_ceil(1_000).clamp(1, (nodes - 1).max(1))
            }
            Self::These(places) => places.len(),
        }
    }
}

impl<'de> Deserialize<'de> for Pick {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Pick;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("nodes: how many (3), which share (\"1%\") or which ([4, 7])")
            }

            fn visit_i64<E: Error>(self, count: i64) -> Result<Pick, E> {
                match usize::try_from(count) {
                    Ok(count) if count > 0 => Ok(Pick::Count(count)),
                    _ => Err(E::custom(format_args!("{count} nodes: at least 1 is needed"))),
                }
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Pick, E> {
                Share::parse(text).map(Pick::Share).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Pick, A::Error> {
                let mut places = Vec::new();
                while let Some(place) = seq.next_element()? {
                    places.push(place);
                }
                places.sort_unstable();
                places.dedup();
                if places.is_empty() {
                    return Err(A::Error::custom("an empty list of nodes"));
                }
                Ok(Pick::These(places))
            }
        }
        from.deserialize_any(Reader)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn shares_are_read_to_a_tenth_of_a_percent() {
        assert_eq!(Share::parse("25%").unwrap(), Share(250));
        assert_eq!(Share::parse("0.5 %").unwrap(), Share(5));
        for bad in ["25", "101%", "-1%", "0.25%", "x%", "nan%"] {
            assert!(Share::parse(bad).unwrap_err().contains(bad), "{bad}");
        }
    }

    #[test]
    fn a_share_of_the_nodes_is_at_least_one_and_never_all() {
        assert_eq!(Pick::Share(Share(10)).len(1_000), 10);
        assert_eq!(Pick::Share(Share(10)).len(20), 1);
        assert_eq!(Pick::Share(Share(1_000)).len(20), 19);
    }
}
