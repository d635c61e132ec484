//! "Did you mean": the nearest of the names that a refusal lists.

/// The names in backquotes behind "expected", as serde's messages list known fields and variants.
pub(super) fn expected(message: &str) -> Vec<&str> {
    let Some((_, list)) = message.split_once(", expected ") else { return Vec::new() };
    list.split('`').skip(1).step_by(2).collect()
}

/// The name among `known` that `wrong` is most likely a slip of.
pub fn nearest<'k>(wrong: &str, known: &[&'k str]) -> Option<&'k str> {
    // A slip in about every third letter.
    let limit = wrong.chars().count().max(3) / 3;
    let plain = |name: &str| name.to_lowercase().replace('-', "_");
    let distance = |name: &str| strsim::damerau_levenshtein(&plain(wrong), &plain(name));
    known.iter().map(|name| (distance(name), *name)).filter(|(d, _)| *d <= limit).min().map(|(_, name)| name)
}

/// serde's message on an unknown field or variant with the name that was meant, where one is near; any other as it is.
pub(super) fn improved(message: &str) -> String {
    let (Some(kind), Some(wrong)) = (unknown(message), message.split('`').nth(1)) else { return message.to_owned() };
    let known = expected(message);
    match nearest(wrong, &known) {
        Some(near) => format!("{}; did you mean `{near}`?", kind_said(kind, wrong)),
        None if known.is_empty() => kind_said(kind, wrong),
        None => {
            let known = known.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            format!("{}; known here: {known}", kind_said(kind, wrong))
        }
    }
}

/// The name of an unknown field, where that is what a message is about.
pub(super) fn unknown_field(message: &str) -> Option<&str> {
    (unknown(message) == Some(Kind::Field)).then(|| message.split('`').nth(1)).flatten()
}

/// The name of a field that is not there, where that is what a message is about.
pub(super) fn missing_field(message: &str) -> Option<&str> {
    message.strip_prefix("missing field `")?.split('`').next()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Field,
    Variant,
}

fn unknown(message: &str) -> Option<Kind> {
    if message.starts_with("unknown field `") {
        Some(Kind::Field)
    } else if message.starts_with("unknown variant `") {
        Some(Kind::Variant)
    } else {
        None
    }
}

fn kind_said(kind: Kind, wrong: &str) -> String {
    match kind {
        Kind::Field => "unknown field".to_owned(),
        Kind::Variant => format!("unknown value \"{wrong}\""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_told_from_another_word() {
        let known = ["memory", "object", "slice", "disk"];
        assert_eq!(nearest("memroy", &known), Some("memory"));
        assert_eq!(nearest("Disk", &known), Some("disk"));
        assert_eq!(nearest("colour", &known), None);
        assert_eq!(nearest("drain-timeout", &["drain_timeout"]), Some("drain_timeout"));
        assert_eq!(
            improved("unknown variant `tokn`, expected one of `token`, `bearer`, `none`"),
            "unknown value \"tokn\"; did you mean `token`?"
        );
        assert_eq!(improved("unknown field `x`, there are no fields"), "unknown field");
        assert_eq!(
            improved("invalid type: string \"one\", expected u64"),
            "invalid type: string \"one\", expected u64"
        );
    }
}
