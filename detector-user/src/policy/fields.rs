//! Reading tables field by field: wrong types, unknown fields and missing ones become diagnostics.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::spelling::{nearest, one_of, quoted};
use super::text::{At, Issue, Report, Span};

/// The fields a kind of table has.
pub(super) struct Schema {
    /// What the table is, with its article: `a service`.
    pub(super) what: &'static str,
    /// The fields it has.
    pub(super) known: &'static [&'static str],
    /// Fields of the language that this version does not have yet.
    pub(super) later: &'static [&'static str],
}

/// A table whose fields are all known ones.
pub(super) struct Fields<'d, 'i> {
    table: &'d DeTable<'i>,
    /// The table's header or its text.
    pub(super) span: Span,
    what: &'static str,
    /// Fields that an unknown one was probably meant to be.
    misspelt: Vec<&'static str>,
}

impl<'d, 'i> Fields<'d, 'i> {
    /// The fields of a table; reports those the schema does not have.
    pub(super) fn new(table: &'d DeTable<'i>, span: Span, schema: &Schema, report: &mut Report<'_>) -> Self {
        let mut misspelt = Vec::new();
        for key in table.keys() {
            let name = key.get_ref().as_ref();
            if schema.known.contains(&name) {
                continue;
            }
            let shown = quoted(name);
            let expected = one_of(schema.known.iter().copied());
            let issue = if schema.later.contains(&name) {
                unsupported(&format!("`{shown}`"), expected).help(format!("remove `{shown}`"))
            } else {
                let meant = nearest(name, schema.known.iter().copied());
                misspelt.extend(meant);
                let issue = Issue::new(format!("unknown field in {}", schema.what), expected);
                issue.help(meant.map(|meant| format!("did you mean `{meant}`?")))
            };
            report.error(key.span(), issue.found(format!("`{shown}`")));
        }
        Self { table, span, what: schema.what, misspelt }
    }

    /// A field, if it is there.
    pub(super) fn field(&self, name: &'static str) -> Option<Field<'d, 'i>> {
        Some(Field { name, value: self.table.get(name)? })
    }

    /// Whether a field that is not known was probably meant to be one of these.
    pub(super) fn is_misspelt(&self, names: &[&'static str]) -> bool {
        self.misspelt.iter().any(|meant| names.contains(meant))
    }

    /// A field that must be there. Reports that it is not, unless its name has been taken for misspelt.
    pub(super) fn required(
        &self,
        name: &'static str,
        expected: &str,
        report: &mut Report<'_>,
    ) -> Option<Field<'d, 'i>> {
        let field = self.field(name);
        if field.is_none() && !self.misspelt.contains(&name) {
            report.error(self.span.clone(), missing(self.what, name, expected));
        }
        field
    }
}

/// A field that must be there and is not.
pub(super) fn missing(what: &str, name: &str, expected: &str) -> Issue {
    Issue::new(format!("missing field in {what}"), expected).found(format!("no `{name}`"))
}

/// Something of the language that this version cannot do.
pub(super) fn unsupported(what: &str, expected: impl Into<String>) -> Issue {
    Issue::new(format!("{what} is not supported by this version"), expected)
}

/// A field of a table, or an element of one.
#[derive(Clone, Copy)]
pub(super) struct Field<'d, 'i> {
    pub(super) name: &'d str,
    pub(super) value: &'d Spanned<DeValue<'i>>,
}

impl<'d, 'i> Field<'d, 'i> {
    pub(super) fn span(&self) -> Span {
        self.value.span()
    }

    /// Reports that the value is of another type than expected.
    pub(super) fn wrong_type(&self, expected: &str, report: &mut Report<'_>) {
        report.error(self.span(), self.wrong_type_issue(expected));
    }

    pub(super) fn wrong_type_issue(&self, expected: &str) -> Issue {
        Issue::new(format!("wrong type for `{}`", quoted(self.name)), expected).found(self.described())
    }

    fn described(&self) -> String {
        match self.value.get_ref() {
            DeValue::String(text) => format!("the text \"{}\"", quoted(text)),
            DeValue::Integer(integer) => format!("the integer {}", quoted(&integer.to_string())),
            DeValue::Float(float) => format!("the number {}", quoted(float.as_str())),
            DeValue::Boolean(boolean) => format!("the boolean {boolean}"),
            DeValue::Datetime(time) => format!("the time {time}"),
            DeValue::Array(_) => "an array".to_owned(),
            DeValue::Table(_) => "a table".to_owned(),
        }
    }

    /// The text of a string.
    pub(super) fn text(&self, expected: &str, report: &mut Report<'_>) -> Option<At<&'d str>> {
        let Some(value) = self.value.get_ref().as_str() else {
            self.wrong_type(expected, report);
            return None;
        };
        Some(At { value, span: self.span() })
    }

    /// A string read by `parse`.
    pub(super) fn parsed<T>(
        &self,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, Issue>,
        report: &mut Report<'_>,
    ) -> Option<At<T>> {
        let text = self.text(expected, report)?;
        match parse(text.value) {
            Ok(value) => Some(At { value, span: text.span }),
            Err(issue) => {
                report.error(text.span, issue);
                None
            }
        }
    }

    /// The strings of an array that is not empty, each read by `parse`; without those it refuses.
    pub(super) fn parsed_each<T>(
        &self,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, Issue>,
        report: &mut Report<'_>,
    ) -> Vec<At<T>> {
        if self.value.get_ref().as_array().is_some_and(|array| array.is_empty()) {
            let issue = Issue::new(format!("empty `{}`", self.name), format!("at least one: {expected}"));
            report.error(self.span(), issue);
        }
        self.parsed_any(expected, parse, report)
    }

    /// The strings of an array that may be empty, each read by `parse`; without those it refuses.
    pub(super) fn parsed_any<T>(
        &self,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, Issue>,
        report: &mut Report<'_>,
    ) -> Vec<At<T>> {
        let Some(array) = self.value.get_ref().as_array() else {
            let issue = self.wrong_type_issue(&format!("an array of {expected}"));
            let text = self.value.get_ref().as_str();
            report.error(self.span(), issue.help(text.map(|text| format!("write [\"{}\"]", quoted(text)))));
            return Vec::new();
        };
        let elements = array.iter().map(|value| Field { name: self.name, value });
        elements.filter_map(|element| element.parsed(expected, &parse, report)).collect()
    }

    /// A string, or the strings of an array that is not empty, each read by `parse`; without those it refuses.
    pub(super) fn parsed_one_or_each<T>(
        &self,
        expected: &str,
        parse: impl Fn(&str) -> Result<T, Issue>,
        report: &mut Report<'_>,
    ) -> Vec<At<T>> {
        match self.value.get_ref() {
            DeValue::Array(_) => self.parsed_each(expected, parse, report),
            _ => self.parsed(expected, parse, report).into_iter().collect(),
        }
    }

    /// A boolean.
    pub(super) fn boolean(&self, report: &mut Report<'_>) -> Option<At<bool>> {
        let DeValue::Boolean(value) = self.value.get_ref() else {
            self.wrong_type("true or false", report);
            return None;
        };
        Some(At { value: *value, span: self.span() })
    }

    /// An integer from 0.
    pub(super) fn unsigned(&self, expected: &str, report: &mut Report<'_>) -> Option<At<u64>> {
        let Some(integer) = self.value.get_ref().as_integer() else {
            self.wrong_type(expected, report);
            return None;
        };
        let Ok(value) = u64::from_str_radix(integer.as_str(), integer.radix()) else {
            let issue = Issue::new(format!("`{}` is out of range", quoted(self.name)), expected);
            report.error(self.span(), issue);
            return None;
        };
        Some(At { value, span: self.span() })
    }

    /// A table with the fields of a schema.
    pub(super) fn table(&self, schema: &Schema, report: &mut Report<'_>) -> Option<Fields<'d, 'i>> {
        let Some(table) = self.value.get_ref().as_table() else {
            let known = one_of(schema.known.iter().copied());
            self.wrong_type(&format!("a table with {known}"), report);
            return None;
        };
        Some(Fields::new(table, self.span(), schema, report))
    }

    /// The tables of an array of tables.
    pub(super) fn tables(&self, schema: &Schema, report: &mut Report<'_>) -> Vec<Fields<'d, 'i>> {
        let Some(array) = self.value.get_ref().as_array() else {
            let issue = self.wrong_type_issue("an array of tables");
            report.error(self.span(), issue.help(format!("write [[{}]]", self.name)));
            return Vec::new();
        };
        let elements = array.iter().map(|value| Field { name: self.name, value });
        elements.filter_map(|element| element.table(schema, report)).collect()
    }
}
