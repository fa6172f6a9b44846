//! Pictures of a run, as SVG that takes its colours from the page around it.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::progress::Sample;
use crate::stats::Spread;

/// In units of the picture; the page scales it.
const SIZE: (u32, u32) = (860, 380);
/// Stands for the colour of text, grid and each series; replaced by the page's own (`var(--..)`).
const INK: RGBColor = RGBColor(1, 1, 1);
const GRID: RGBColor = RGBColor(2, 2, 2);
const SERIES: [RGBColor; 6] = [
    RGBColor(3, 3, 1),
    RGBColor(3, 3, 2),
    RGBColor(3, 3, 3),
    RGBColor(3, 3, 4),
    RGBColor(3, 3, 5),
    RGBColor(3, 3, 6),
];
/// The same as names, in the page's style sheet.
const SERIES_NAMES: [&str; 6] = ["--c1", "--c2", "--c3", "--c4", "--c5", "--c6"];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

/// A named line.
pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    /// Which of the series' colours.
    colour: usize,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Line<'_> {
    /// The name of its colour in the page's style sheet.
    pub(crate) fn colour_name(&self) -> &'static str {
        SERIES_NAMES[self.colour % SERIES_NAMES.len()]
    }

    const fn colour(&self) -> RGBColor {
        SERIES[self.colour % SERIES.len()]
    }
}

/// Shares of values that are at most so many milliseconds, on a logarithmic axis. None where there is nothing to draw.
pub(crate) fn distributions(lines: &[Line<'_>]) -> Option<String> {
    let all = || lines.iter().flat_map(|line| &line.points).map(|p| p.0);
    let from = all().fold(f64::INFINITY, f64::min).max(0.001) * 0.8;
    let to = all().fold(0.0, f64::max) * 1.25;
    if lines.is_empty() || from >= to {
        return None;
    }
    draw(|area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(40)
            .y_label_area_size(48)
            .build_cartesian_2d((from..to).log_scale(), 0.0..101.0)?;
        chart
            .configure_mesh()
            .x_labels(8)
            .y_labels(6)
            .x_desc("time (logarithmic)")
            .x_label_formatter(&|ms| decade(*ms))
            .y_label_formatter(&|percent| format!("{percent:.0} %"))
            .axis_style(GRID)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .label_style(("sans-serif", 14).into_font().color(&INK))
            .draw()?;
        for line in lines {
            let style = line.colour().stroke_width(2);
            chart.draw_series(LineSeries::new(line.points.clone(), style))?;
        }
        Ok(())
    })
}

/// The lines of [`distributions`], for the legend too; what was never measured has none.
pub(crate) fn curves<'a>(spreads: &[(&'a str, &Spread)]) -> Vec<Line<'a>> {
    spreads
        .iter()
        .filter(|(_, spread)| spread.count > 0)
        .enumerate()
        .map(|(colour, (name, spread))| Line {
            name,
            colour,
            points: steps(&spread.curve),
        })
        .collect()
}

/// A distribution of few values is a staircase, and is drawn as one: a straight line between two values would claim values that were
/// not there.
fn steps(curve: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let mut points = Vec::with_capacity(curve.len() * 2);
    let mut below = 0.0;
    for (ms, percent) in curve {
        let ms = ms.max(0.001);
        points.push((ms, below));
        points.push((ms, *percent));
        below = *percent;
    }
    points
}

/// Where the clients were over time. None for a run without a moment.
pub(crate) fn over_time(lines: &[Line<'_>]) -> Option<String> {
    let to = lines.first()?.points.last()?.0;
    let most = lines
        .iter()
        .flat_map(|line| &line.points)
        .fold(0.0, |most: f64, point| most.max(point.1));
    if to <= 0.0 || most <= 0.0 {
        return None;
    }
    draw(|area| {
        let mut chart = ChartBuilder::on(area)
            .margin(8)
            .x_label_area_size(40)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..to, 0.0..most * 1.05)?;
        chart
            .configure_mesh()
            .x_labels(10)
            .y_labels(6)
            .x_desc("seconds since the beginning")
            .x_label_formatter(&|at| plain(*at))
            .y_label_formatter(&|clients| format!("{clients:.0}"))
            .axis_style(GRID)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .label_style(("sans-serif", 14).into_font().color(&INK))
            .draw()?;
        for line in lines {
            let style = line.colour().stroke_width(2);
            chart.draw_series(LineSeries::new(line.points.clone(), style))?;
        }
        Ok(())
    })
}

/// The lines of [`over_time`], for the legend too; where nobody ever was is left out.
pub(crate) fn timeline(samples: &[Sample]) -> Vec<Line<'static>> {
    type Count = fn(&Sample) -> usize;
    let lines: [(&str, Count); SERIES.len()] = [
        ("waiting for a match", |s| s.clients.queue),
        ("waiting for the game", |s| {
            s.clients.start + s.clients.connect
        }),
        ("playing", |s| s.clients.play),
        ("ending", |s| s.clients.end),
        ("finished", |s| s.clients.good),
        ("failed or given up", |s| {
            s.clients.failed + s.clients.interrupted
        }),
    ];
    lines
        .into_iter()
        .enumerate()
        .map(|(colour, (name, count))| Line {
            name,
            colour,
            points: samples.iter().map(|s| (s.at_s, count(s) as f64)).collect(),
        })
        .filter(|line| line.points.iter().any(|point| point.1 > 0.0))
        .collect()
}

/// A mark of the logarithmic axis.
fn decade(ms: f64) -> String {
    if ms >= 1000.0 {
        format!("{} s", plain(ms / 1000.0))
    } else {
        format!("{} ms", plain(ms))
    }
}

/// Without zeros at its end.
fn plain(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn draw(paint: impl FnOnce(&Area<'_>) -> Drawn) -> Option<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        // Drawing into a string fails only on sizes that are not ours; a report without a picture is still a report.
        paint(&area).ok()?;
        area.present().ok()?;
    }
    Some(themed(svg))
}

/// Puts the page's colours in place of the stand-ins and lets the picture scale.
fn themed(svg: String) -> String {
    let hex = |c: RGBColor| format!("\"#{:02X}{:02X}{:02X}\"", c.0, c.1, c.2);
    let mut svg = svg
        .replace(&hex(INK), "\"var(--ink)\"")
        .replace(&hex(GRID), "\"var(--grid)\"");
    for (colour, name) in SERIES.into_iter().zip(SERIES_NAMES) {
        svg = svg.replace(&hex(colour), &format!("\"var({name})\""));
    }
    let (width, height) = SIZE;
    svg.replacen(
        &format!("width=\"{width}\" height=\"{height}\" "),
        "role=\"img\" ",
        1,
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn curves_are_drawn_in_the_pages_colours() {
        let a = Spread::of((1..200).map(Duration::from_millis));
        let one = Spread::of([Duration::from_millis(7)]);
        let none = Spread::default();
        let lines = curves(&[("a", &a), ("none", &none), ("one", &one)]);
        assert_eq!(lines.len(), 2);
        let svg = distributions(&lines).unwrap();
        assert!(
            svg.starts_with("<svg role=\"img\"") && svg.contains("viewBox"),
            "{svg:.300}"
        );
        assert!(svg.contains("var(--ink)") && svg.contains("var(--grid)"));
        assert!(svg.contains("stroke=\"var(--c1)\"") && svg.contains("stroke=\"var(--c2)\""));
        assert!(!svg.contains("var(--c3)"));
        assert!(distributions(&curves(&[("none", &none)])).is_none());
    }

    #[test]
    fn a_timeline_needs_a_moment() {
        let progress = crate::progress::Progress::default();
        progress.begin(3);
        let _ = progress.sample(Duration::ZERO);
        assert!(over_time(&timeline(&progress.samples())).is_none());
        progress.finish(crate::progress::Ended::Good);
        let _ = progress.sample(Duration::from_secs(1));
        let lines = timeline(&progress.samples());
        assert_eq!(lines.len(), 1, "where nobody was is left out");
        assert_eq!(lines[0].name, "finished");
        // Its colour is its own, whoever else is shown.
        assert!(over_time(&lines).unwrap().contains("var(--c5)"));
    }

    #[test]
    fn marks_are_short() {
        let marks = [0.01, 1.0, 2500.0].map(decade);
        assert_eq!(marks, ["0.01 ms", "1 ms", "2.5 s"]);
    }
}
