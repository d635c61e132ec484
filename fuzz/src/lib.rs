//! What the targets share: ways from bytes to the texts and header fields that parsers take.

/// Splits fuzz input into texts at its zero bytes.
pub fn texts<const N: usize>(data: &[u8]) -> Option<[&str; N]> {
    let mut parts = data.splitn(N, |byte| *byte == 0);
    let mut texts = [""; N];
    for text in &mut texts {
        *text = std::str::from_utf8(parts.next()?).ok()?;
    }
    Some(texts)
}

/// Header fields out of `name: value` lines.
pub fn headers(lines: &str) -> http::HeaderMap {
    let mut headers = http::HeaderMap::new();
    for (name, value) in lines.lines().take(64).filter_map(|line| line.split_once(": ")) {
        if let (Ok(name), Ok(value)) = (http::HeaderName::try_from(name), http::HeaderValue::from_str(value)) {
            headers.append(name, value);
        }
    }
    headers
}
