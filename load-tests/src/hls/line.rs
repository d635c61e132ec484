//! The lines of a playlist: tags, URIs, and what is neither.

/// The most segments, variants or renditions of one playlist.
pub(super) const MAX_ENTRIES: usize = 100_000;

/// One line with meaning.
pub(super) enum Line<'a> {
    Tag { name: &'a str, value: Option<&'a str> },
    Uri(&'a str),
}

/// What a line says; `None` for blank lines and comments.
pub(super) fn meaning(line: &str) -> Result<Option<Line<'_>>, String> {
    if line.chars().any(char::is_control) {
        return Err("a control character".into());
    }
    if line.is_empty() {
        return Ok(None);
    }
    let Some(rest) = line.strip_prefix('#') else {
        return if line.trim().len() == line.len() {
            Ok(Some(Line::Uri(line)))
        } else {
            Err("white space around a URI".into())
        };
    };
    if !rest.starts_with("EXT") {
        return Ok(None);
    }
    let (name, value) = match rest.split_once(':') {
        Some((name, value)) => (name, Some(value)),
        None => (rest, None),
    };
    if name == "EXTM3U" {
        return Err("#EXTM3U comes once, first".into());
    }
    Ok(Some(Line::Tag { name, value }))
}
