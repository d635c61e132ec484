//! Keys at rest: the content keys of encrypted lessons are stored sealed with AES-256-GCM (NIST SP 800-38D) under a key
//! from a directory, so that the database or a copy of it alone opens no lesson.
//!
//! Each file `<name>.key` holds 64 hexadecimal digits. The last one by name seals; all of them open, so a rotation is a
//! new file: what older ones sealed is sealed again in the background, and then their files may go. Where there is
//! none, the first is made. Origins over one database need the same files.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};

use lyceum_catalog::SealedKey;
use lyceum_core::ids::{Id, random_bytes};

/// The most files of sealing keys.
const MAX_KEYS: usize = 64;
/// The name of the first key; it sorts before those that operators name by date.
const FIRST_KEY_NAME: &str = "0";

/// Why a key can't be sealed or opened.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// A file or its folder.
    #[error("{path}: {cause}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        cause: String,
    },
    /// The file that sealed it is not among those of this origin.
    #[error("a key was sealed by `{0}`, and there is no {0}.key here: give all origins the same sealing keys")]
    UnknownSealer(String),
    /// The stored key was changed, or belongs to another version.
    #[error("a sealed key does not open: the database was changed by another hand")]
    Broken,
}

fn file_error(path: &Path, cause: impl std::fmt::Display) -> SealError {
    SealError::File { path: path.to_owned(), cause: cause.to_string() }
}

/// The sealing keys in force; clones share them.
#[derive(Clone)]
pub(crate) struct Sealer {
    folder: PathBuf,
    keys: Arc<ArcSwap<BTreeMap<String, LessSafeKey>>>,
}

impl Sealer {
    /// Reads the directory, and makes the first key where there is none. Blocks on files.
    pub(crate) fn open(folder: &Path) -> Result<Self, SealError> {
        make_folder(folder)?;
        let mut keys = load(folder)?;
        if keys.is_empty() {
            make_first(folder)?;
            keys = load(folder)?;
        }
        Ok(Self { folder: folder.to_owned(), keys: Arc::new(ArcSwap::from_pointee(keys)) })
    }

    /// Reads the directory again; what can't be read leaves the keys in force as they are. Blocks on files.
    pub(crate) fn reload(&self) {
        match load(&self.folder) {
            Ok(keys) if keys.is_empty() => tracing::error!("the sealing keys are gone; those in force stay"),
            Ok(keys) => self.keys.store(Arc::new(keys)),
            Err(error) => tracing::error!(%error, "the sealing keys can't be read; those in force stay"),
        }
    }

    /// The name of the key that seals now.
    pub(crate) fn name(&self) -> String {
        self.keys.load().last_key_value().map(|(name, _)| name.clone()).unwrap_or_default()
    }

    /// Seals `key` for that lesson's version; it opens for no other.
    pub(crate) fn seal(&self, id: &Id, lesson: &Id, version: &Id, key: &[u8; 16]) -> Result<SealedKey, SealError> {
        let keys = self.keys.load();
        let (name, sealer) = keys.last_key_value().ok_or(SealError::Broken)?;
        let nonce = random_bytes::<NONCE_LEN>();
        let mut bytes = key.to_vec();
        sealer
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                associated_data(id, lesson, version),
                &mut bytes,
            )
            .map_err(|_| SealError::Broken)?;
        let sealed = nonce.iter().copied().chain(bytes).collect();
        Ok(SealedKey {
            id: id.clone(),
            lesson: lesson.clone(),
            version: version.clone(),
            sealed,
            sealed_by: name.clone(),
        })
    }

    /// The content key itself, 16 bytes.
    pub(crate) fn unseal(&self, sealed: &SealedKey) -> Result<[u8; 16], SealError> {
        let keys = self.keys.load();
        let sealer = keys.get(&sealed.sealed_by);
        let sealer = sealer.ok_or_else(|| SealError::UnknownSealer(sealed.sealed_by.clone()))?;
        let (nonce, bytes) = sealed.sealed.split_at_checked(NONCE_LEN).ok_or(SealError::Broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Broken)?;
        let mut bytes = bytes.to_vec();
        let bound = associated_data(&sealed.id, &sealed.lesson, &sealed.version);
        let opened = sealer.open_in_place(nonce, bound, &mut bytes).map_err(|_| SealError::Broken)?;
        <[u8; 16]>::try_from(&*opened).map_err(|_| SealError::Broken)
    }
}

/// The associated data that a seal is bound to.
fn associated_data(id: &Id, lesson: &Id, version: &Id) -> Aad<Vec<u8>> {
    Aad::from(format!("{lesson}/{version}/{id}").into_bytes())
}

fn make_folder(folder: &Path) -> Result<(), SealError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(|error| file_error(folder, error))
}

/// Makes the first key. Another origin may do the same at this moment: the link that is made first decides.
fn make_first(folder: &Path) -> Result<(), SealError> {
    let draft = folder.join(format!(".{}", Id::random()));
    let written = || -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(hex(&random_bytes::<32>()).as_bytes())?;
        file.sync_all()?;
        match fs::hard_link(&draft, folder.join(format!("{FIRST_KEY_NAME}.key"))) {
            Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        fs::remove_file(&draft)?;
        fs::File::open(folder)?.sync_all()
    };
    written().map_err(|error| file_error(folder, error))
}

fn load(folder: &Path) -> Result<BTreeMap<String, LessSafeKey>, SealError> {
    let mut keys = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(|error| file_error(folder, error))? {
        let path = entry.map_err(|error| file_error(folder, error))?.path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        if path.extension().is_none_or(|end| end != "key") || name.is_empty() || name.len() > 64 {
            continue;
        }
        if keys.len() == MAX_KEYS {
            return Err(file_error(folder, format!("more than {MAX_KEYS} keys")));
        }
        let text = fs::read_to_string(&path).map_err(|error| file_error(&path, error))?;
        let key = unhex(text.trim()).and_then(|bytes| UnboundKey::new(&AES_256_GCM, &bytes).ok());
        let key = key.ok_or_else(|| file_error(&path, "a sealing key is 64 hexadecimal digits"))?;
        keys.insert(name.to_owned(), LessSafeKey::new(key));
    }
    Ok(keys)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect::<Option<_>>()?;
    (digits.len() == 64)
        .then(|| digits.chunks(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> Id {
        Id::parse(text).unwrap()
    }

    #[test]
    fn a_sealed_key_opens_for_its_own_version_alone() {
        let dir = tempfile::tempdir().unwrap();
        let sealer = Sealer::open(dir.path()).unwrap();
        let key = random_bytes::<16>();
        let sealed = sealer.seal(&id("k"), &id("l"), &id("v"), &key).unwrap();
        assert!(!sealed.sealed.windows(16).any(|window| window == key));
        assert_eq!(sealer.unseal(&sealed).unwrap(), key);
        assert_eq!(Sealer::open(dir.path()).unwrap().unseal(&sealed).unwrap(), key, "the key is kept");
        let moved = SealedKey { version: id("other"), ..sealed.clone() };
        assert!(matches!(sealer.unseal(&moved), Err(SealError::Broken)));
        let mut bent = sealed.clone();
        *bent.sealed.last_mut().unwrap() ^= 1;
        assert!(matches!(sealer.unseal(&bent), Err(SealError::Broken)));
        let short = SealedKey { sealed: vec![1, 2], ..sealed };
        assert!(matches!(sealer.unseal(&short), Err(SealError::Broken)));
    }

    #[test]
    fn the_last_key_by_name_seals_and_older_ones_open() {
        let dir = tempfile::tempdir().unwrap();
        let sealer = Sealer::open(dir.path()).unwrap();
        let key = [7; 16];
        let before = sealer.seal(&id("k"), &id("l"), &id("v"), &key).unwrap();
        fs::write(dir.path().join("2026-12.key"), hex(&[9; 32])).unwrap();
        sealer.reload();
        let after = sealer.seal(&id("k"), &id("l"), &id("v"), &key).unwrap();
        assert_eq!((before.sealed_by.as_str(), after.sealed_by.as_str()), ("0", "2026-12"));
        assert_eq!((sealer.unseal(&before).unwrap(), sealer.unseal(&after).unwrap()), (key, key));
        fs::remove_file(dir.path().join("0.key")).unwrap();
        sealer.reload();
        assert!(matches!(sealer.unseal(&before), Err(SealError::UnknownSealer(name)) if name == "0"));
        fs::write(dir.path().join("zz.key"), "short").unwrap();
        assert!(Sealer::open(dir.path()).is_err());
    }
}
