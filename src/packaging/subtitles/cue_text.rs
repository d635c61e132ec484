//! Cue text: from the markup of other formats to WebVTT's (W3C WebVTT, section 4.2.2), without anything that would end
//! a cue or start another.

/// The longest text of a cue, in bytes.
const MAX_TEXT_BYTES: usize = 4096;

/// Tags that players support; they are kept.
const TAGS: &[&str] = &["i", "b", "u", "v", "c", "lang", "ruby", "rt"];
/// Character references that are kept.
const REFERENCES: &[&str] = &["amp;", "lt;", "gt;", "nbsp;", "lrm;", "rlm;", "quot;"];

/// Text with HTML-like tags (SubRip, WebVTT) as cue text. Tags and marks that players would display literally are
/// removed.
pub(super) fn from_tagged(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['<', '&', '>', '{']) {
        let (before, tail) = rest.split_at(at);
        out.push_str(before);
        let (taken, kept) = special(tail);
        out.push_str(&kept);
        rest = tail.get(taken..).unwrap_or_default();
    }
    out.push_str(rest);
    lines(&out)
}

/// How many bytes to take from `tail`, which begins with a special character, and their replacement.
fn special(tail: &str) -> (usize, String) {
    if let Some(marked) = tail.strip_prefix('&') {
        let known = REFERENCES.iter().any(|reference| marked.starts_with(reference));
        return (1, if known { "&" } else { "&amp;" }.to_owned());
    }
    if tail.starts_with('>') {
        return (1, "&gt;".to_owned());
    }
    if tail.starts_with('{') {
        // SubRip players know marks such as {\an8}.
        let end = tail.find('}').filter(|_| tail.starts_with("{\\"));
        return end.map_or_else(|| (1, "{".to_owned()), |end| (end + 1, String::new()));
    }
    let Some(end) = tail.find('>') else { return (1, "&lt;".to_owned()) };
    let tag = tail.get(1..end).unwrap_or_default();
    let inner = tag.strip_prefix('/').unwrap_or(tag);
    let name: String = inner.chars().take_while(char::is_ascii_alphabetic).collect();
    let known = TAGS.contains(&name.to_ascii_lowercase().as_str());
    let plain = tag.len() <= 200 && !tag.contains(['<', '&', '\n', '\r']);
    if known && plain {
        return (end + 1, format!("<{}>", tag.replace(&name, &name.to_ascii_lowercase())));
    }
    let html =
        name.eq_ignore_ascii_case("font") || name.eq_ignore_ascii_case("span") || name.eq_ignore_ascii_case("br");
    let time = inner.starts_with(|c: char| c.is_ascii_digit()) && inner.contains(':');
    if html || time { (end + 1, String::new()) } else { (1, "&lt;".to_owned()) }
}

/// Plain text as cue text.
pub(super) fn from_plain(text: &str) -> String {
    lines(&text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;"))
}

/// The text of an Advanced SubStation Alpha event as cue text: overrides in braces are removed, `\N` ends a line.
pub(super) fn from_ass(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['{', '\\']) {
        let (before, tail) = rest.split_at(at);
        out.push_str(before);
        let (taken, kept) = match tail.as_bytes() {
            [b'\\', b'N', ..] => (2, "\n"),
            [b'\\', b'n', ..] => (2, " "),
            [b'\\', b'h', ..] => (2, "\u{a0}"),
            [b'{', ..] => tail.find('}').map_or((1, "{"), |end| (end + 1, "")),
            _ => (1, "\\"),
        };
        out.push_str(kept);
        rest = tail.get(taken..).unwrap_or_default();
    }
    out.push_str(rest);
    from_plain(&out)
}

/// The lines without blank ones and control characters, at most [`MAX_TEXT_BYTES`].
fn lines(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(MAX_TEXT_BYTES));
    for line in text.split(['\n', '\r']) {
        let line: String = line.chars().filter(|c| !c.is_control()).collect();
        let line = line.trim_end();
        if line.trim_start().is_empty() || out.len() + line.len() > MAX_TEXT_BYTES {
            continue;
        }
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(line);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_of_other_formats_becomes_webvtt() {
        for (text, wanted) in [
            ("<i>Hello</i> <FONT color=red>you</FONT>", "<i>Hello</i> you"),
            ("<B>5 < 6 & 7 > 3</B>", "<b>5 &lt; 6 &amp; 7 &gt; 3</b>"),
            ("a --> b\r\n\r\nc &amp; d", "a --&gt; b\nc &amp; d"),
            ("{\\an8}up {here}", "up {here}"),
            ("<v Ann>Hi <00:01.000>there", "<v Ann>Hi there"),
            ("<script>x", "&lt;script&gt;x"),
            ("\u{0}\u{1b}[0m", "[0m"),
        ] {
            assert_eq!(from_tagged(text), wanted, "{text}");
        }
        assert_eq!(from_ass("{\\b1}One\\NTwo\\h& <3 \\x"), "One\nTwo\u{a0}&amp; &lt;3 \\x");
    }
}
