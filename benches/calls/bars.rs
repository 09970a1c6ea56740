//! Medians, and the bars that figures are held to.

/// A figure and the most it may be.
pub(crate) struct Bar {
    pub(crate) text: String,
    pub(crate) figure: f64,
    pub(crate) unit: &'static str,
    pub(crate) limit: f64,
}

/// Writes the bars to standard output; whether all are met.
pub(crate) fn print_bars(bars: &[Bar]) -> bool {
    println!();
    for Bar { text, figure, unit, limit } in bars {
        let verdict = if figure <= limit { "met" } else { "missed" };
        println!("bar  {text:54} at most {limit}{unit}  figure {figure:.2}{unit}  {verdict}");
    }
    bars.iter().all(|bar| bar.figure <= bar.limit)
}

/// The middle one, or the mean of the two middle ones.
pub(crate) fn median(figures: &[f64]) -> f64 {
    let mut sorted = figures.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[half],
        _ => f64::midpoint(sorted[half - 1], sorted[half]),
    }
}
