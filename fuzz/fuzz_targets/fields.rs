//! Cache-Control, conditions, dates, Forwarded, and what a cache makes of them.
#![no_main]

use libfuzzer_sys::fuzz_target;
use lyceum_fuzz::{headers, texts};
use lyceum_http::cache_control::Directives;
use lyceum_http::conditional::{self, Validators};
use lyceum_http::ip_network::Network;
use lyceum_http::{fields, forwarded};

fuzz_target!(|data: &[u8]| {
    let Some([request, response]) = texts::<2>(data) else { return };
    let (request, response) = (headers(request), headers(response));
    let _ = (Directives::of(&request), Directives::of(&response), Directives::targeted(&response));
    let validators = Validators::of(&response);
    let _ = conditional::judge(&request, &validators);
    let _ = conditional::range_applies(&request, &validators);
    for value in request.values().filter_map(|value| value.to_str().ok()) {
        let _ = fields::date(value);
        let _ = value.parse::<Network>().map(|network| assert_eq!(network.to_string().parse(), Ok(network)));
        for member in fields::list(value) {
            assert!(!member.is_empty() && value.contains(member));
        }
    }
    let peer = "192.0.2.1".parse().expect("an address");
    for hops in [forwarded::forwarded(&request), forwarded::x_forwarded_for(&request)] {
        assert!(hops.len() <= 32);
        let trusted = ["10.0.0.0/8".parse().expect("a network")];
        assert_eq!(forwarded::client(peer, &hops, &trusted).address, Some(peer), "a stranger speaks for itself");
    }
    let mut kept = response.clone();
    fields::strip_hop_by_hop(&mut kept);
    assert!(fields::HOP_BY_HOP.iter().all(|name| !kept.contains_key(name)));
});
