//! Languages: from the codes of files and creators to BCP 47 tags, path segments and names shown to viewers.

/// ISO 639-2 codes that containers carry (terminology and bibliographic), the BCP 47 tag, and the language's own name.
const LANGUAGES: &[(&str, &str, &str)] = &[
    ("ara", "ar", "العربية"),
    ("ces", "cs", "Čeština"),
    ("cze", "cs", "Čeština"),
    ("dan", "da", "Dansk"),
    ("deu", "de", "Deutsch"),
    ("ger", "de", "Deutsch"),
    ("ell", "el", "Ελληνικά"),
    ("gre", "el", "Ελληνικά"),
    ("eng", "en", "English"),
    ("spa", "es", "Español"),
    ("fin", "fi", "Suomi"),
    ("fra", "fr", "Français"),
    ("fre", "fr", "Français"),
    ("heb", "he", "עברית"),
    ("hin", "hi", "हिन्दी"),
    ("hun", "hu", "Magyar"),
    ("ita", "it", "Italiano"),
    ("jpn", "ja", "日本語"),
    ("kor", "ko", "한국어"),
    ("nld", "nl", "Nederlands"),
    ("dut", "nl", "Nederlands"),
    ("nor", "no", "Norsk"),
    ("pol", "pl", "Polski"),
    ("por", "pt", "Português"),
    ("ron", "ro", "Română"),
    ("rum", "ro", "Română"),
    ("rus", "ru", "Русский"),
    ("swe", "sv", "Svenska"),
    ("tur", "tr", "Türkçe"),
    ("ukr", "uk", "Українська"),
    ("vie", "vi", "Tiếng Việt"),
    ("chi", "zh", "中文"),
    ("zho", "zh", "中文"),
];

/// A track's language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Language {
    /// Its part of a path, unique among the tracks of its kind.
    pub(super) slug: String,
    /// A BCP 47 tag, `und` where not known.
    pub(super) tag: String,
    /// The name shown to viewers.
    pub(super) label: String,
}

/// Names a track in language `code` (as the file or its creator gives it) among others that have the tags `others`. `kind`
/// labels tracks of no known language.
pub(super) fn named<'a>(code: &str, kind: &str, others: impl Iterator<Item = &'a str> + Clone) -> Language {
    let code = code.to_ascii_lowercase().replace('_', "-");
    let known = LANGUAGES.iter().find(|(long, short, _)| *long == code || *short == code);
    let (tag, label) = match known {
        Some((_, tag, label)) => ((*tag).to_owned(), (*label).to_owned()),
        None if is_tag(&code) && code != "und" => (code.clone(), code.clone()),
        None => ("und".to_owned(), format!("{kind} {}", others.clone().count() + 1)),
    };
    let same = others.filter(|other| *other == tag).count();
    let slug = if same == 0 { tag.clone() } else { format!("{tag}{}", same + 1) };
    let label = if same == 0 || tag == "und" { label } else { format!("{label} {}", same + 1) };
    Language { slug, tag, label }
}

/// Whether it is a language of two or three letters, then subtags of two to eight letters or digits (RFC 5646,
/// section 2.1).
fn is_tag(tag: &str) -> bool {
    let mut parts = tag.split('-');
    let language = parts.next().unwrap_or_default();
    let subtag = |part: &str| (2..=8).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_alphanumeric());
    (2..=3).contains(&language.len())
        && language.bytes().all(|b| b.is_ascii_lowercase())
        && tag.len() <= 20
        && parts.all(subtag)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_get_tags_paths_and_names() {
        for (said, beside, slug, tag, label) in [
            ("eng", &[][..], "en", "en", "English"),
            ("ger", &["de"], "de2", "de", "Deutsch 2"),
            ("pt-BR", &[], "pt-br", "pt-br", "pt-br"),
            ("zxx", &["en"], "zxx", "zxx", "zxx"),
            ("", &["en"], "und", "und", "Subtitles 2"),
            ("../x", &["und"], "und2", "und", "Subtitles 2"),
        ] {
            let found = named(said, "Subtitles", beside.iter().copied());
            assert_eq!((found.slug.as_str(), found.tag.as_str(), found.label.as_str()), (slug, tag, label), "{said}");
        }
    }
}
