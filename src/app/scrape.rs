//! Reads what a program's operators' listener tells: health, readiness, metrics.

use http::Method;
use lyceum_client::{self as client, Http};
use lyceum_core::units::Span;

/// One sample of a metric in the Prometheus text format.
#[derive(Debug, PartialEq)]
struct Sample {
    name: String,
    labels: String,
    value: f64,
}

/// The metrics of one program.
#[derive(Debug, Default)]
pub(super) struct Metrics(Vec<Sample>);

impl Metrics {
    /// Reads the text format; lines that it does not understand are left out.
    pub(super) fn parse(text: &str) -> Self {
        let sample = |line: &str| {
            let (series, value) = line.trim().rsplit_once(' ')?;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let labels = labels.trim_end_matches('}').to_owned();
            Some(Sample { name: name.to_owned(), labels, value: value.parse().ok()? })
        };
        Self(text.lines().filter(|line| !line.starts_with('#')).filter_map(sample).collect())
    }

    /// The sum of a metric's samples whose labels hold all of `labels`, such as `outcome="hit"`; none where there is none.
    pub(super) fn sum(&self, name: &str, labels: &[&str]) -> Option<f64> {
        let ours = |sample: &&Sample| sample.name == name && labels.iter().all(|label| sample.labels.contains(label));
        let mut values = self.0.iter().filter(ours).map(|sample| sample.value).peekable();
        values.peek()?;
        Some(values.sum())
    }

    /// The values of a metric with one of their labels.
    pub(super) fn by_label<'m>(&'m self, name: &'m str, label: &'m str) -> impl Iterator<Item = (&'m str, f64)> {
        let ours = self.0.iter().filter(move |sample| sample.name == name);
        ours.filter_map(move |sample| Some((value_of(&sample.labels, label)?, sample.value)))
    }

    /// Whether any metric's name begins so.
    pub(super) fn any(&self, prefix: &str) -> bool {
        self.0.iter().any(|sample| sample.name.starts_with(prefix))
    }
}

fn value_of<'l>(labels: &'l str, label: &str) -> Option<&'l str> {
    labels.split(',').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        (name == label).then(|| value.trim_matches('"'))
    })
}

/// A client that gives up soon: whoever asks is waiting for the answer.
pub(super) fn quick() -> Http {
    Http::new(client::Limits {
        connect: Span::secs(3),
        response: Span::secs(10),
        body: Span::secs(10),
        ..client::Limits::default()
    })
}

/// What a GET answers, as status and text; `Err` where nothing answers.
pub(super) async fn get(http: &Http, url: &str) -> Result<(u16, String), client::Error> {
    let response = http.send(client::request(Method::GET, url, "")?).await?;
    let status = response.status().as_u16();
    let body = http.bytes(response).await?;
    Ok((status, String::from_utf8_lossy(&body).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_summed_by_labels() {
        let metrics = Metrics::parse(
            "# HELP a_total x\na_total{outcome=\"hit\",status=\"200\"} 3\na_total{outcome=\"miss\",status=\"200\"} 4\n\
             up{pool=\"o\",origin=\"h:1\"} 1\nup{pool=\"o\",origin=\"h:2\"} 0\nplain 2.5\n",
        );
        assert_eq!(metrics.sum("a_total", &[]), Some(7.0));
        assert_eq!(metrics.sum("a_total", &["outcome=\"hit\""]), Some(3.0));
        assert_eq!((metrics.sum("plain", &[]), metrics.sum("absent", &[])), (Some(2.5), None));
        assert_eq!(metrics.by_label("up", "origin").collect::<Vec<_>>(), [("h:1", 1.0), ("h:2", 0.0)]);
    }
}
