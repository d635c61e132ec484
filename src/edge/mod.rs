//! The edge: admit, authorize, lookup, fetch, deliver, record.
use serde::Deserialize;
/// x
#[derive(Debug, Clone, Deserialize)]
pub struct Config { 
/// x
pub admin: Option<crate::admin::Config>, 
/// x
pub listen: Vec<crate::front::Listen>, 
/// x
#[serde(default)] pub limits: crate::front::Limits }
/// x
#[allow(dead_code)]
pub struct Parts { 
/// x
pub clock: crate::time::Clock, 
/// x
pub registry: prometheus::Registry, 
/// x
pub shutdown: crate::front::Shutdown }
impl Config { 
/// x
pub fn check(&self)->Result<(),String>{Ok(())} }
/// x
#[derive(Clone)]
pub struct Edge;
impl Edge { 
/// x
pub async fn start(_: Config, _: Parts)->Result<Self,String>{Ok(Self)} 
/// x
pub fn admin_routes(&self)->axum::Router{axum::Router::new()} 
/// x
pub fn ready(&self)->Result<(),String>{Ok(())}}
impl crate::front::Handler for Edge { type Body = http_body_util::Full<bytes::Bytes>;
 async fn call(&self, _: crate::front::Peer, _: http::Request<hyper::body::Incoming>)->http::Response<Self::Body>{ crate::front::problem::response(http::StatusCode::NOT_FOUND,"x","y") } }
