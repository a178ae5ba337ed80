//! Parameters: each is declared once, with its default, range, unit and meaning. From that come the struct, its place in a scenario
//! file, its check and its row in docs/scenarios.md.

use std::ops::RangeInclusive;

use crate::scenario::{Error, Level};

/// A parameter, as the documentation has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parameter {
    /// Its name in a scenario file.
    pub name: &'static str,
    /// What it is if it is not given.
    pub default: String,
    /// What it may be.
    pub range: String,
    /// Unit of the default and the range.
    pub unit: &'static str,
    /// What it means.
    pub help: &'static str,
}

/// What a parameter may hold.
pub(crate) trait Value {
    /// What is compared with the range; `None`: nothing is.
    fn number(&self) -> Option<f64>;

    /// As the documentation has it.
    fn text(&self) -> String;

    fn range(range: &RangeInclusive<f64>) -> String {
        format!("{} to {}", grouped(*range.start()), grouped(*range.end()))
    }
}

/// Numbers as people read them.
fn grouped(number: f64) -> String {
    if number.fract() != 0.0 || number.abs() < 10_000.0 {
        return number.to_string();
    }
    let digits = format!("{number:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

impl Value for u32 {
    fn number(&self) -> Option<f64> {
        Some(f64::from(*self))
    }

    fn text(&self) -> String {
        grouped(f64::from(*self))
    }
}

impl Value for f64 {
    fn number(&self) -> Option<f64> {
        Some(*self)
    }

    fn text(&self) -> String {
        grouped(*self)
    }
}

impl<V: Value> Value for Option<V> {
    fn number(&self) -> Option<f64> {
        self.as_ref().and_then(V::number)
    }

    fn text(&self) -> String {
        self.as_ref().map_or_else(|| "–".into(), V::text)
    }

    fn range(range: &RangeInclusive<f64>) -> String {
        V::range(range)
    }
}

impl Value for String {
    fn number(&self) -> Option<f64> {
        None
    }

    fn text(&self) -> String {
        format!("`{self}`")
    }

    fn range(_: &RangeInclusive<f64>) -> String {
        "a name".into()
    }
}

impl Value for Level {
    fn number(&self) -> Option<f64> {
        None
    }

    fn text(&self) -> String {
        format!("`{self:?}`")
    }

    fn range(_: &RangeInclusive<f64>) -> String {
        "`L0` to `L5`".into()
    }
}

/// Compares a number with its range.
pub(crate) fn check<V: Value>(
    place: &str,
    name: &str,
    value: &V,
    range: &RangeInclusive<f64>,
    unit: &str,
) -> Result<(), Error> {
    match value.number() {
        Some(number) if !range.contains(&number) => Err(Error::Value {
            place: format!("{place}{name}"),
            found: number.to_string(),
            expected: format!("{} {unit}", V::range(range)).trim_end().to_owned(),
        }),
        _ => Ok(()),
    }
}

macro_rules! parameters {
    ($(#[doc = $about:literal])* $vis:vis struct $name:ident {
        $($field:ident: $type:ty = $default:expr, $range:expr, $unit:literal, $help:literal;)*
        $(@lists { $(#[doc = $list_help:literal] $list:ident: $item:ty = $list_default:expr;)* })?
    }) => {
        $(#[doc = $about])*
        #[derive(Clone, Debug, PartialEq, serde::Deserialize)]
        #[serde(deny_unknown_fields, default)]
        $vis struct $name {
            $(#[doc = $help] pub $field: $type,)*
            $($(#[doc = $list_help] pub $list: Vec<$item>,)*)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self { $($field: $default,)* $($($list: $list_default,)*)? }
            }
        }

        impl $name {
            /// What it is about.
            pub const ABOUT: &str = concat!($($about, "\n",)*);

            /// Its parameters.
            pub fn parameters() -> Vec<$crate::scenario::Parameter> {
                use $crate::scenario::parameters::Value as _;
                let default = Self::default();
                vec![$($crate::scenario::Parameter {
                    name: stringify!($field),
                    default: default.$field.text(),
                    range: <$type as $crate::scenario::parameters::Value>::range(&$range),
                    unit: $unit,
                    help: $help,
                },)*]
            }

            /// Compares each number with its range; `place` is where this is.
            pub(crate) fn check(&self, place: &str) -> Result<(), $crate::scenario::Error> {
                $($crate::scenario::parameters::check(place, stringify!($field), &self.$field, &$range, $unit)?;)*
                $($(for (index, item) in self.$list.iter().enumerate() {
                    item.check(&format!("{place}{}[{index}].", stringify!($list)))?;
                })*)?
                Ok(())
            }
        }
    };
}

pub(crate) use parameters;
