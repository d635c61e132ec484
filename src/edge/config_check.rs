//! Checks of `edge.toml` that no single key can make: whether its parts fit together.
//!
//! What an edge refuses at its start for its configuration alone is refused here; files that the configuration names are
//! read at the start.

use std::collections::HashMap;

use crate::config::{Auth, Config, Route, Tokens};
use crate::control::keys::KeySource;
use lyceum_core::config::Fault;
use lyceum_http::path::CleanPath;
use lyceum_upstream::{Metrics, Pool, PoolConfig, PoolError};

impl Config {
    /// Finds what can't work in a configuration that parses, without starting anything; each fault with its key.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        faults.extend(self.admin.as_ref().and_then(|admin| admin.fault("admin")));
        if self.listen.is_empty() {
            faults.push(Fault::at("listen", "there is no [[listen]]: add one with an address"));
        }
        faults.extend(self.listen.iter().enumerate().filter_map(|(n, listen)| listen.fault(&format!("listen[{n}]"))));
        self.pool_faults(&mut faults);
        if let Some(tokens) = &self.tokens {
            token_faults(tokens, &mut faults);
        }
        self.route_faults(&mut faults);
        faults
    }

    fn pool_faults(&self, faults: &mut Vec<Fault>) {
        let metrics = Metrics::new(&prometheus::Registry::new());
        let mut lines = HashMap::new();
        for (n, pool) in self.pool.iter().enumerate() {
            let at = |key: &str, what: String| Fault::at(&format!("pool[{n}]{key}"), what);
            if lines.insert(&pool.name, n).is_some() {
                faults.push(at(".name", format!("another pool is called \"{}\"", pool.name)));
            }
            if pool.origins.is_empty() {
                faults.push(at(".origins", PoolError::Empty(pool.name.clone()).to_string()));
            } else if let Err(error) = Pool::new(pool, &metrics) {
                faults.push(at(&pool_key(pool, &error), error.to_string()));
            }
        }
    }

    fn route_faults(&self, faults: &mut Vec<Fault>) {
        let pools: HashMap<&str, bool> =
            self.pool.iter().map(|pool| (pool.name.as_str(), pool.auth.is_some())).collect();
        for (n, route) in self.route.iter().enumerate() {
            let with_credentials = pools.get(route.pool.as_str()).copied();
            let before = self.route.iter().take(n).map(|route| route.prefix.as_str());
            if let Err((key, what)) = check_route(route, with_credentials, self.tokens.is_some(), before) {
                let what = match key {
                    "pool" => with_suggestion(what, &route.pool, pools.keys().copied()),
                    _ => what,
                };
                faults.push(Fault::at(&format!("route[{n}].{key}"), what));
            }
        }
    }
}

/// Whether a route can work: the key to blame, and what is wrong. `with_credentials` is what its pool shows its origins,
/// none where there is no such pool; `before` are the prefixes of the routes above it.
pub(crate) fn check_route<'r>(
    route: &Route,
    with_credentials: Option<bool>,
    has_tokens: bool,
    mut before: impl Iterator<Item = &'r str>,
) -> Result<(), (&'static str, String)> {
    let wrong = |key, what: &str| Err((key, what.to_owned()));
    if CleanPath::check(&route.prefix).is_err() {
        return wrong("prefix", "a prefix begins with a slash and has no dot or empty segments");
    }
    let Some(with_credentials) = with_credentials else {
        return Err(("pool", format!("there is no pool \"{}\"", route.pool)));
    };
    match (route.auth, &route.bearer) {
        (Auth::Token, _) if !has_tokens => wrong("auth", "auth = \"token\" needs [tokens]"),
        (Auth::Bearer, None) => wrong("auth", "auth = \"bearer\" needs bearer = \"…\""),
        (Auth::Token | Auth::None, Some(_)) => wrong("bearer", "bearer goes with auth = \"bearer\" alone"),
        (Auth::None, None) if with_credentials => {
            wrong("auth", "auth = \"none\" before a pool with credentials would open what they guard")
        }
        _ if before.any(|other| other == route.prefix) => wrong("prefix", "another route has the same prefix"),
        _ => Ok(()),
    }
}

fn with_suggestion<'n>(what: String, wrong: &str, known: impl Iterator<Item = &'n str>) -> String {
    let known: Vec<&str> = known.collect();
    match lyceum_core::config::nearest(wrong, &known) {
        Some(near) => format!("{what}; did you mean \"{near}\"?"),
        None => what,
    }
}

/// The key of a pool that an error is about.
fn pool_key(pool: &PoolConfig, error: &PoolError) -> String {
    let origins = pool.origins.iter().enumerate().map(|(n, origin)| (format!(".origins[{n}]"), origin));
    let backup = pool.backup.iter().enumerate().map(|(n, origin)| (format!(".backup[{n}]"), origin));
    let mut all = origins.chain(backup);
    let place = match error {
        PoolError::Url(url) => all.find(|(_, origin)| origin.url == *url).map(|(key, _)| format!("{key}.url")),
        PoolError::Prefix(prefix) => {
            all.find(|(_, origin)| origin.prefix == *prefix).map(|(key, _)| format!("{key}.prefix"))
        }
        PoolError::S3 => Some(".auth.s3".to_owned()),
        PoolError::Auth => Some(".auth".to_owned()),
        PoolError::Ca { .. } => Some(".ca".to_owned()),
        PoolError::Empty(_) => Some(".origins".to_owned()),
    };
    place.unwrap_or_default()
}

fn token_faults(tokens: &Tokens, faults: &mut Vec<Fault>) {
    for (n, issuer) in tokens.issuers.iter().enumerate() {
        for (m, jwks) in issuer.jwks.iter().enumerate() {
            if let Err(error) = KeySource::new(jwks, issuer.hs256) {
                faults.push(Fault::at(&format!("tokens.issuers[{n}].jwks[{m}]"), error));
            }
        }
    }
    let renews = tokens.renewal.as_ref().map(|renewal| renewal.issuer.as_str());
    if tokens.issuers.iter().any(|issuer| Some(issuer.name.as_str()) == renews) {
        faults
            .push(Fault::at("tokens.renewal.issuer", "another issuer has this name: a key signs for its issuer alone"));
    }
}
