//! Who may have what: signing, and the checks that make a `Grant`.
