//! Balancing, ejection and retries; what needs sockets is tested in `tests/edge`.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::StatusCode;
use lyceum_core::time::monotonic;
use prometheus::Registry;

use super::*;
use crate::balance::mix;

fn pool(text: &str) -> Pool {
    let config: PoolConfig = toml::from_str(text).unwrap();
    Pool::new(&config, &Metrics::new(&Registry::new())).unwrap()
}

fn three(balance: &str) -> Pool {
    pool(&format!(
        "name = \"p\"\nbalance = \"{balance}\"\norigins = [{{ url = \"http://a:1\" }}, {{ url = \"http://b:1\" }}, \
         {{ url = \"http://c:1\", weight = 2 }}]\nbackup = [{{ url = \"http://d:1\" }}]"
    ))
}

fn choose(pool: &Pool, affinity: u64, tried: &[usize]) -> usize {
    pool.balancer.choose(&pool.origins, affinity, tried, monotonic()).unwrap().0
}

fn spread(pool: &Pool) -> HashMap<usize, usize> {
    let mut counts = HashMap::new();
    for n in 0..4000 {
        *counts.entry(choose(pool, mix(n), &[])).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn each_balance_gives_each_origin_its_share() {
    for balance in ["consistent-hash", "round-robin"] {
        let counts = spread(&three(balance));
        assert_eq!(counts.len(), 3, "{balance}: no backup while others are up");
        assert!((700..1300).contains(&counts[&0]) && (1600..2400).contains(&counts[&2]), "{balance}: {counts:?}");
    }
    let least = three("least-loaded");
    least.origins[0].in_flight.store(50, Ordering::Relaxed);
    let counts = spread(&least);
    assert!(counts.get(&0).copied().unwrap_or(0) < counts[&1], "{counts:?}");
}

#[tokio::test]
async fn a_key_keeps_its_origin_while_others_are_ejected() {
    let pool = three("consistent-hash");
    let before: Vec<usize> = (0..1000).map(|n| choose(&pool, mix(n), &[])).collect();
    for _ in 0..3 {
        pool.origins[0].record_failure(Failure::Connect, monotonic());
    }
    for (n, was) in before.iter().enumerate().filter(|(_, was)| **was != 0) {
        assert_eq!(choose(&pool, mix(n as u64), &[]), *was);
    }
    assert!((0..1000).all(|n| choose(&pool, mix(n), &[]) != 0));
}

#[tokio::test]
async fn a_busy_origin_passes_its_surplus_on() {
    let pool = three("consistent-hash");
    let key = (0..).map(mix).find(|key| choose(&pool, *key, &[]) == 0).unwrap();
    pool.origins[0].in_flight.store(100, Ordering::Relaxed);
    assert_ne!(choose(&pool, key, &[]), 0);
}

#[tokio::test(start_paused = true)]
async fn failures_in_a_row_eject_for_doubling_times() {
    let pool = three("round-robin");
    let origin = &pool.origins[0];
    let fail = |times: usize| (0..times).for_each(|_| origin.record_failure(Failure::Timeout, monotonic()));
    fail(2);
    origin.record_response(StatusCode::OK, Duration::from_millis(1), monotonic());
    fail(2);
    assert!(origin.is_up(monotonic()), "not in a row");
    fail(1);
    assert!(!origin.is_up(monotonic()));
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(origin.is_up(monotonic()));
    fail(3);
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(!origin.is_up(monotonic()), "twice as long");
    tokio::time::advance(Duration::from_secs(2)).await;
    assert!(origin.is_up(monotonic()));
    for _ in 0..3 {
        origin.record_response(StatusCode::BAD_GATEWAY, Duration::from_millis(1), monotonic());
    }
    assert!(!origin.is_up(monotonic()), "responses that blame the origin count");
}

#[tokio::test]
async fn backups_and_then_any_origin_when_all_are_out() {
    let pool = three("consistent-hash");
    let eject = |index: usize| (0..3).for_each(|_| pool.origins[index].record_failure(Failure::Connect, monotonic()));
    (0..3).for_each(eject);
    assert_eq!(choose(&pool, 1, &[]), 3, "the backup");
    eject(3);
    assert!(choose(&pool, 1, &[]) < 3, "any rather than none");
    assert!(pool.balancer.choose(&pool.origins, 1, &[0, 1, 2, 3], monotonic()).is_none());
}

#[tokio::test]
async fn retries_are_a_share_of_requests() {
    let pool = three("round-robin");
    let burst = (0..1000).filter(|_| pool.spend_retry()).count();
    assert_eq!(burst as i64, MAX_SAVED_RETRIES);
    (0..100).for_each(|_| pool.earn_retries());
    assert_eq!((0..1000).filter(|_| pool.spend_retry()).count(), 20);
}

#[test]
fn urls_have_a_scheme_host_and_port_only() {
    for url in ["ftp://a", "a:1", "http://", "http://a/b", "http://u@a:1", "http://a:1/?q"] {
        let text = format!("name = \"p\"\norigins = [{{ url = \"{url}\" }}]");
        let made = toml::from_str(&text).map(|config| Pool::new(&config, &Metrics::new(&Registry::new())));
        assert!(!matches!(made, Ok(Ok(_))), "{url}");
    }
}
