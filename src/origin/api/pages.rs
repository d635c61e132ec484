//! The web pages (studio and player), embedded in the program, under a content security policy that allows no script but
//! their own.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use rust_embed::{EmbeddedFile, RustEmbed};

use super::refusal::Refusal;
use crate::state::App;

#[derive(RustEmbed)]
#[folder = "../../web/dist"]
#[allow_missing = true]
struct Files;

/// The fallback of the router: the pages, else 404.
pub(super) async fn serve(State(app): State<Arc<App>>, request: Request) -> Result<Response, Refusal> {
    let path = request.uri().path();
    if !matches!(*request.method(), Method::GET | Method::HEAD) || path.starts_with("/v1/") {
        return Err(Refusal::NotFound);
    }
    let name = path.trim_start_matches('/');
    let (name, page) = match name {
        "" => ("index.html".to_owned(), true),
        "studio" | "watch" => return redirect(&format!("/{name}/")),
        name if name.ends_with('/') => (format!("{name}index.html"), true),
        name => (name.to_owned(), name.ends_with(".html")),
    };
    let (file, coding) = encoded(&name, request.headers()).ok_or(Refusal::NotFound)?;
    let etag: String = file.metadata.sha256_hash().iter().take(12).map(|byte| format!("{byte:02x}")).collect();
    let etag = format!("\"{etag}\"");
    let known = request.headers().get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let unchanged = known.flat_map(|field| field.split(',')).any(|tag| tag.trim() == etag || tag.trim() == "*");
    let body = if unchanged { Body::empty() } else { Body::from(file.data.into_owned()) };
    let mut response = Response::new(body);
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    set_headers(&app, &name, &etag, page, response.headers_mut())?;
    if let Some(coding) = coding {
        response.headers_mut().insert(header::CONTENT_ENCODING, HeaderValue::from_static(coding));
    }
    if name.starts_with("assets/") {
        response.headers_mut().insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
    Ok(response)
}

/// The file in the smallest content coding that the browser accepts. The build puts compressed forms beside the larger
/// files.
fn encoded(name: &str, headers: &HeaderMap) -> Option<(EmbeddedFile, Option<&'static str>)> {
    for (coding, ending) in [("br", "br"), ("gzip", "gz")] {
        let small = if accepts(headers, coding) { Files::get(&format!("{name}.{ending}")) } else { None };
        if let Some(small) = small {
            return Some((small, Some(coding)));
        }
    }
    Some((Files::get(name)?, None))
}

/// Whether `Accept-Encoding` names the content coding (RFC 9110, section 12.5.3).
fn accepts(headers: &HeaderMap, coding: &str) -> bool {
    let fields = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    fields.flat_map(|field| field.split(',')).any(|member| {
        let (name, weight) = member.split_once(';').unwrap_or((member, ""));
        let weight = weight.trim().strip_prefix("q=").and_then(|weight| weight.trim().parse::<f32>().ok());
        name.trim().eq_ignore_ascii_case(coding) && weight.is_none_or(|weight| weight > 0.0)
    })
}

fn redirect(to: &str) -> Result<Response, Refusal> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::PERMANENT_REDIRECT;
    let to = HeaderValue::try_from(to).map_err(|error| Refusal::Internal(error.to_string()))?;
    response.headers_mut().insert(header::LOCATION, to);
    Ok(response)
}

fn set_headers(app: &App, name: &str, etag: &str, page: bool, to: &mut HeaderMap) -> Result<(), Refusal> {
    let value = |text: &str| HeaderValue::try_from(text).map_err(|error| Refusal::Internal(error.to_string()));
    let kind = mime_guess::from_path(name).first_or_octet_stream();
    let kind = match (kind.type_().as_str(), kind.subtype().as_str()) {
        ("text", _) => format!("{}; charset=utf-8", kind.essence_str()),
        _ => kind.essence_str().to_owned(),
    };
    to.insert(header::CONTENT_TYPE, value(&kind)?);
    to.insert(header::ETAG, value(etag)?);
    // Names under assets/ carry a hash of the content.
    let hashed = name.starts_with("assets/");
    let cache = if hashed { "public, max-age=31536000, immutable" } else { "no-cache" };
    to.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    to.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    to.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    if page {
        to.insert(header::CONTENT_SECURITY_POLICY, value(&policy(&app.config().edges))?);
        to.insert(header::X_FRAME_OPTIONS, HeaderValue::from_static("SAMEORIGIN"));
    }
    Ok(())
}

/// The content security policy. Media and playlists come from edges, and a playback link may name any; hls.js feeds the
/// player from memory (`blob:`) and parses in a worker.
fn policy(edges: &[String]) -> String {
    let edges = edges.join(" ");
    format!(
        "default-src 'self'; script-src 'self'; style-src 'self'; worker-src 'self' blob:; \
         img-src 'self' data: blob: {edges} https:; media-src 'self' blob: {edges} https:; \
         connect-src 'self' {edges} https:; font-src 'self'; object-src 'none'; base-uri 'none'; \
         form-action 'self'; frame-ancestors 'self'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_coding_is_used_when_it_is_named_with_a_weight_above_zero() {
        let of =
            |field: &'static str| HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(field))]);
        assert!(accepts(&of("gzip, deflate, br"), "br") && accepts(&of("deflate, GZIP;q=0.5"), "gzip"));
        assert!(!accepts(&of("gzip, br;q=0"), "br") && !accepts(&of("*"), "br") && !accepts(&HeaderMap::new(), "gzip"));
    }

    #[test]
    fn the_policy_names_the_edges_and_allows_no_inline_script() {
        let policy = policy(&["http://127.0.0.1:8090".to_owned()]);
        assert!(policy.contains("connect-src 'self' http://127.0.0.1:8090"));
        assert!(!policy.contains("unsafe"));
    }
}
