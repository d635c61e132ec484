//! The text of a configuration: its syntax, its values, and the line of each key.

use std::ops::Range;

use toml::Value;
use toml_edit::{Document as Spanned, Item};

use super::error::Finding;
use super::key_path::{KeyPath, Step};

/// A file whose syntax is right.
pub(super) struct Document<'t> {
    text: &'t str,
    spanned: Spanned<&'t str>,
}

impl<'t> Document<'t> {
    /// Parses `text`, or says all that is wrong with its syntax.
    pub(super) fn parse(text: &'t str) -> Result<(Self, toml::Table), Vec<Finding>> {
        let finding = |span: Option<Range<usize>>, message: &str| Finding {
            line: line_of(text, span.map_or(0, |span| span.start)),
            key: None,
            what: sentence(message),
        };
        let spanned = Spanned::parse(text);
        match (spanned, toml::from_str::<toml::Table>(text)) {
            (Ok(spanned), Ok(table)) => Ok((Self { text, spanned }, table)),
            (spanned, table) => {
                let (_, errors) = toml::de::DeTable::parse_recoverable(text);
                let mut findings: Vec<Finding> = errors.iter().map(|e| finding(e.span(), e.message())).collect();
                if findings.is_empty() {
                    findings.extend(spanned.err().map(|e| finding(e.span(), e.message())));
                }
                if findings.is_empty() {
                    findings.extend(table.err().map(|e| finding(e.span(), e.message())));
                }
                findings.sort_by_key(|finding| finding.line);
                findings.dedup();
                Err(findings)
            }
        }
    }

    /// The line of the key at `path`, or of what comes nearest above it.
    pub(super) fn line(&self, path: &KeyPath) -> usize {
        let mut line = 1;
        let mut node = Node::Item(self.spanned.as_item());
        for step in &path.0 {
            let Some((span, next)) = node.step(step) else { break };
            if let Some(span) = span {
                line = line_of(self.text, span.start);
            }
            node = next;
        }
        line
    }
}

/// A part of the document.
#[derive(Clone, Copy)]
enum Node<'d> {
    Item(&'d Item),
    Table(&'d toml_edit::Table),
    Value(&'d toml_edit::Value),
}

impl<'d> Node<'d> {
    fn step(self, step: &Step) -> Option<(Option<Range<usize>>, Self)> {
        match step {
            Step::Key(name) => {
                let table: &'d dyn toml_edit::TableLike = match self {
                    Self::Item(item) => item.as_table_like()?,
                    Self::Table(table) => table,
                    Self::Value(value) => value.as_inline_table()?,
                };
                let (key, item) = table.get_key_value(name)?;
                // A `[table]` has its header as the key's place, a list of tables that of its first.
                Some((key.span().or_else(|| item.span()), Self::Item(item)))
            }
            Step::Index(index) => {
                let array = match self {
                    Self::Item(Item::ArrayOfTables(tables)) => {
                        let table = tables.get(*index)?;
                        return Some((table.span(), Self::Table(table)));
                    }
                    Self::Item(item) => item.as_array()?,
                    Self::Value(value) => value.as_array()?,
                    Self::Table(_) => return None,
                };
                let value = array.get(*index)?;
                Some((value.span(), Self::Value(value)))
            }
        }
    }
}

/// The value at `path`.
pub(super) fn value_at<'v>(root: &'v mut Value, path: &KeyPath) -> Option<&'v mut Value> {
    path.0.iter().try_fold(root, |value, step| match (step, value) {
        (Step::Key(name), Value::Table(table)) => table.get_mut(name),
        (Step::Index(index), Value::Array(array)) => array.get_mut(*index),
        _ => None,
    })
}

/// A message of a parser as one line.
pub(super) fn sentence(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|b| *b == b'\n').count() + 1
}
