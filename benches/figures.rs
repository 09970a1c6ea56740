//! Figures, the targets they are held to, and where they are shown: a table, a file of JSON and a chart.

use std::fmt::Write as _;
use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::Result;

/// What a figure is held to.
#[derive(Clone, Copy)]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
    /// It is only shown.
    None,
}

/// One measured quantity.
pub(crate) struct Figure {
    name: String,
    unit: &'static str,
    ours: f64,
    /// The same of what it is held against in the same run, and the median of the rounds' ratios: a machine that slows
    /// down between rounds does not count.
    reference: Option<(f64, f64)>,
    /// On the ratio if there is one, else on `ours`.
    target: Target,
}

impl Figure {
    /// A figure by itself.
    pub(crate) fn alone(name: impl Into<String>, unit: &'static str, ours: f64, target: Target) -> Self {
        Self { name: name.into(), unit, ours, reference: None, target }
    }

    /// The medians of rounds, and of their ratios to the reference of the same round.
    pub(crate) fn beside(
        name: impl Into<String>,
        unit: &'static str,
        ours: &[f64],
        reference: &[f64],
        target: Target,
    ) -> Self {
        let ratios: Vec<f64> = ours.iter().zip(reference).map(|(ours, reference)| ours / reference).collect();
        let reference = Some((median(reference), median(&ratios)));
        Self { name: name.into(), unit, ours: median(ours), reference, target }
    }

    fn judged(&self) -> f64 {
        self.reference.map_or(self.ours, |(_, ratio)| ratio)
    }

    /// Returns false if it has a target and misses it.
    pub(crate) fn is_met(&self) -> bool {
        match self.target {
            Target::AtMost(limit) => self.judged() <= limit,
            Target::AtLeast(limit) => self.judged() >= limit,
            Target::None => true,
        }
    }

    /// The part of its target that it takes: at most 1 if it is met.
    fn share(&self) -> Option<f64> {
        match self.target {
            Target::AtMost(limit) => Some(self.judged() / limit),
            Target::AtLeast(limit) => Some(limit / self.judged()),
            Target::None => None,
        }
    }

    fn verdict(&self) -> &'static str {
        match (self.target, self.is_met()) {
            (Target::None, _) => "",
            (_, true) => "met",
            (_, false) => "missed",
        }
    }

    fn target_text(&self) -> String {
        match self.target {
            Target::AtMost(limit) => {
                format!("<= {limit:.4}").trim_end_matches('0').trim_end_matches('.').to_owned()
            }
            Target::AtLeast(limit) => {
                format!(">= {limit:.4}").trim_end_matches('0').trim_end_matches('.').to_owned()
            }
            Target::None => String::new(),
        }
    }

    fn json(&self) -> Value {
        let (at_most, at_least) = match self.target {
            Target::AtMost(limit) => (Some(limit), None),
            Target::AtLeast(limit) => (None, Some(limit)),
            Target::None => (None, None),
        };
        json!({
            "figure": self.name,
            "unit": self.unit,
            "ours": self.ours,
            "reference": self.reference.map(|(reference, _)| reference),
            "ratio": self.reference.map(|(_, ratio)| ratio),
            "at_most": at_most,
            "at_least": at_least,
            "met": self.is_met(),
        })
    }
}

/// Writes the table to standard output.
pub(crate) fn print(figures: &[Figure]) {
    let width = figures.iter().map(|figure| figure.name.chars().count()).max().unwrap_or(0);
    println!("\n{:width$}{:>20}{:>12}{:>9}{:>10}", "figure", "ours", "reference", "ratio", "target");
    for figure in figures {
        let (reference, ratio) = figure
            .reference
            .map_or_else(Default::default, |(reference, ratio)| (short(reference), format!("{ratio:.3}")));
        let ours = format!("{} {}", short(figure.ours), figure.unit);
        let target = figure.target_text();
        println!(
            "{:width$}{ours:>20}{reference:>12}{ratio:>9}{target:>10}  {}",
            figure.name,
            figure.verdict()
        );
    }
}

/// Three or four digits that count.
fn short(figure: f64) -> String {
    let decimals = match figure.abs() {
        small if small < 10.0 => 2,
        middle if middle < 1_000.0 => 1,
        _ => 0,
    };
    format!("{figure:.decimals$}")
}

/// Writes all figures as JSON, and those with a target as a chart; returns the two files.
pub(crate) fn store(figures: &[Figure]) -> Result<(PathBuf, PathBuf)> {
    // target/release/deps/usersd-0123456789abcdef
    let program = std::env::current_exe()?;
    let folder = program.ancestors().nth(3).ok_or("this program is not in a target folder of cargo")?;
    let dir = folder.join("bench");
    fs::create_dir_all(&dir)?;
    let (json, chart) = (dir.join("figures.json"), dir.join("figures.svg"));
    let values: Vec<Value> = figures.iter().map(Figure::json).collect();
    fs::write(&json, serde_json::to_string_pretty(&values)?)?;
    fs::write(&chart, svg(figures)?)?;
    Ok((json, chart))
}

/// A line a figure, as long as the part of its target that it takes.
fn svg(figures: &[Figure]) -> Result<String> {
    const ROW: usize = 18;
    const TEXT: f64 = 520.0;
    const FULL: f64 = 240.0;
    const LONGEST: f64 = 2.0;
    let rows: Vec<_> = figures.iter().filter_map(|figure| Some((figure, figure.share()?))).collect();
    let height = (rows.len() + 2) * ROW;
    let target_at = TEXT + FULL;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"1120\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n<text x=\"{target_at}\" y=\"13\" \
         text-anchor=\"middle\">the target</text>\n"
    );
    for (row, (figure, share)) in rows.into_iter().enumerate() {
        let top = (row + 1) * ROW;
        let (length, colour) =
            (FULL * share.min(LONGEST), if figure.is_met() { "#4c9f70" } else { "#c8553d" });
        writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text><rect x=\"{TEXT}\" y=\"{}\" width=\"{length:.1}\" \
             height=\"12\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"{}\">{} ({})</text>",
            TEXT - 6.0,
            top + 13,
            escaped(&figure.name),
            top + 3,
            TEXT + length + 6.0,
            top + 13,
            short(figure.judged()),
            escaped(&figure.target_text()),
        )?;
    }
    let bottom = height - ROW / 2;
    writeln!(
        svg,
        "<line x1=\"{target_at}\" y1=\"{ROW}\" x2=\"{target_at}\" y2=\"{bottom}\" stroke=\"black\"/>\n</svg>"
    )?;
    Ok(svg)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
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
