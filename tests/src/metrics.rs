//! Reading a page of OpenMetrics, as far as tests need it.

/// A page of metrics.
#[derive(Debug)]
pub struct Metrics(pub String);

impl Metrics {
    /// The sum of all samples of a name that have these labels.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let samples = self.0.lines().filter_map(|line| sample(line, name, labels));
        samples.sum()
    }

    /// Whether there is a sample of a name that has these labels.
    pub fn has(&self, name: &str, labels: &[(&str, &str)]) -> bool {
        self.0.lines().any(|line| sample(line, name, labels).is_some())
    }
}

fn sample(line: &str, name: &str, labels: &[(&str, &str)]) -> Option<u64> {
    let rest = line.strip_prefix(name)?;
    let (found, value) = match rest.strip_prefix('{') {
        Some(rest) => rest.rsplit_once("} ")?,
        None => ("", rest.strip_prefix(' ')?),
    };
    let found: Vec<_> = found.split(',').collect();
    let has = |(key, value): &(&str, &str)| found.contains(&format!("{key}=\"{value}\"").as_str());
    if !labels.iter().all(has) {
        return None;
    }
    value.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_found_by_name_and_labels() {
        let page =
            "# TYPE a counter\na_total{x=\"1\",y=\"p q\"} 3\na_total{x=\"2\",y=\"p q\"} 4\nab_total 9\nb 5\n";
        let metrics = Metrics(page.to_owned());
        assert_eq!(metrics.sum("a_total", &[]), 7);
        assert_eq!(metrics.sum("a_total", &[("x", "2")]), 4);
        assert_eq!(metrics.sum("a_total", &[("y", "p q"), ("x", "1")]), 3);
        assert_eq!((metrics.sum("b", &[]), metrics.sum("c", &[])), (5, 0));
    }
}
