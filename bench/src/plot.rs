//! Measurements as pictures: distributions (which share was done by when) and lines (how a figure grows with another).

use anyhow::{Result, anyhow};
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;

const SIZE: (u32, u32) = (880, 440);
/// The tail beyond this quantile would squeeze the rest; it is in the table.
const SHOWN: f64 = 0.995;
/// Told apart in grey print too.
const COLOURS: [RGBColor; 5] = [
    RGBColor(0xb4, 0x46, 0x2a),
    RGBColor(0xe0, 0xa0, 0x30),
    RGBColor(0x1f, 0x5f, 0x8b),
    RGBColor(0x6f, 0xb1, 0xd6),
    RGBColor(0x55, 0x6b, 0x2f),
];

/// What stands around a picture.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Words<'a> {
    pub(crate) caption: &'a str,
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
}

/// A named line.
pub(crate) type Series = (String, Vec<(f64, f64)>);

/// An SVG of cumulative distributions of sorted samples, on a logarithmic axis.
pub(crate) fn distributions(words: Words<'_>, curves: &[(String, Vec<f64>)]) -> Result<String> {
    let shown = |v: &[f64]| v[..((v.len() as f64 * SHOWN).ceil() as usize).min(v.len())].to_vec();
    let all: Vec<f64> = curves
        .iter()
        .flat_map(|(_, v)| shown(v))
        .filter(|x| *x > 0.0)
        .collect();
    let from = all.iter().copied().fold(f64::INFINITY, f64::min) * 0.8;
    let to = all.iter().copied().fold(0.0, f64::max) * 2.6; // room for the legend
    let series: Vec<Series> = curves
        .iter()
        .map(|(name, values)| {
            let n = values.len() as f64;
            let points = shown(values)
                .into_iter()
                .enumerate()
                .map(|(at, x)| (x, (at + 1) as f64 * 100.0 / n));
            (name.clone(), points.collect())
        })
        .collect();
    let style = Style {
        dots: false,
        legend: SeriesLabelPosition::LowerRight,
        x_tick: decade_tick,
    };
    draw(words, (from..to).log_scale(), 0.0..100.0, &series, style)
}

/// An SVG of how figures go on over time, from nothing.
pub(crate) fn over_time(words: Words<'_>, series: &[Series]) -> Result<String> {
    let most = |of: fn(&(f64, f64)) -> f64| {
        let all = series.iter().flat_map(|(_, points)| points).map(of);
        all.fold(0.0, f64::max)
    };
    let style = Style {
        dots: false,
        legend: SeriesLabelPosition::LowerRight,
        x_tick: tick,
    };
    let (x, y) = (0.0..most(|p| p.0), 0.0..most(|p| p.1) * 1.1);
    draw(words, x, y, series, style)
}

/// What differs between the kinds of pictures.
#[derive(Clone)]
struct Style {
    /// Measured points are marked.
    dots: bool,
    legend: SeriesLabelPosition,
    x_tick: fn(f64) -> String,
}

/// How the upright axis goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upright {
    /// From nothing, in even steps.
    Even,
    /// Logarithmic as the other one: what grows in proportion is straight.
    Logarithmic,
}

/// An SVG of lines through measured points; the level axis is logarithmic.
pub(crate) fn lines(words: Words<'_>, upright: Upright, series: &[Series]) -> Result<String> {
    let range = |of: fn(&(f64, f64)) -> f64| {
        let all = series.iter().flat_map(|(_, points)| points).map(of);
        all.filter(|x| *x > 0.0)
            .fold((f64::INFINITY, 0.0_f64), |(a, b), x| (a.min(x), b.max(x)))
    };
    let ((left, right), (low, high)) = (range(|p| p.0), range(|p| p.1));
    let x = (left * 0.8..right * 1.6).log_scale();
    let style = Style {
        dots: true,
        legend: SeriesLabelPosition::UpperLeft,
        x_tick: decade_tick,
    };
    // Above: room for the legend.
    match upright {
        Upright::Even => draw(words, x, 0.0..high * 1.3, series, style),
        Upright::Logarithmic => {
            let y = (low * 0.8..high * 1.6).log_scale();
            draw(words, x, y, series, style)
        }
    }
}

fn draw<X, Y>(
    words: Words<'_>,
    x: impl AsRangedCoord<CoordDescType = X, Value = f64>,
    y: impl AsRangedCoord<CoordDescType = Y, Value = f64>,
    series: &[Series],
    style: Style,
) -> Result<String>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut svg = String::new();
    draw_into(&mut svg, words, x, y, series, style).map_err(|e| anyhow!("drawing: {e}"))?;
    Ok(svg)
}

fn draw_into<X, Y>(
    svg: &mut String,
    words: Words<'_>,
    x: impl AsRangedCoord<CoordDescType = X, Value = f64>,
    y: impl AsRangedCoord<CoordDescType = Y, Value = f64>,
    series: &[Series],
    style: Style,
) -> Result<(), Box<dyn std::error::Error>>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(words.caption, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(56)
        .build_cartesian_2d(x, y)?;
    chart
        .configure_mesh()
        .x_labels(24)
        .y_labels(12)
        .x_desc(words.x)
        .y_desc(words.y)
        .x_label_formatter(&|x| (style.x_tick)(*x))
        .y_label_formatter(&|y| tick(*y))
        .label_style(("sans-serif", 13))
        .light_line_style(WHITE)
        .draw()?;
    for ((name, points), colour) in series.iter().zip(COLOURS) {
        chart
            .draw_series(LineSeries::new(
                points.iter().copied(),
                colour.stroke_width(2),
            ))?
            .label(name.clone())
            .legend(move |(x, y)| {
                PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(3))
            });
        if style.dots {
            chart.draw_series(points.iter().map(|p| Circle::new(*p, 4, colour.filled())))?;
        }
    }
    chart
        .configure_series_labels()
        .position(style.legend)
        .background_style(WHITE)
        .border_style(RGBColor(0xcc, 0xcc, 0xcc))
        .label_font(("sans-serif", 14))
        .draw()?;
    area.present()?;
    drop(chart);
    Ok(())
}

/// An axis's figure: no more digits than it needs.
fn tick(value: f64) -> String {
    let text = format!("{value:.2}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A figure of a logarithmic axis: only 1, 2 and 5 of each decade, which stand far enough apart to be read.
fn decade_tick(value: f64) -> String {
    let leading = value / 10f64.powf(value.log10().floor());
    let shown = [1.0, 2.0, 5.0].iter().any(|m| (leading - m).abs() < 1e-6);
    if shown { tick(value) } else { String::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORDS: Words<'_> = Words {
        caption: "what it is",
        x: "across",
        y: "up",
    };

    #[test]
    fn a_picture_names_every_curve() {
        let curves = [
            ("ours".to_owned(), vec![1.0, 2.0, 3.0]),
            ("bare".to_owned(), vec![0.5, 0.6, 9.0]),
        ];
        let svg = distributions(WORDS, &curves).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        for word in ["what it is", "across", "up", "ours", "bare"] {
            assert!(svg.contains(word), "{word}");
        }
        assert!(svg.matches("<polyline").count() >= 2);
    }

    #[test]
    fn lines_have_a_dot_for_each_measured_point() {
        let series = [
            ("a".to_owned(), vec![(1_000.0, 1.0), (100_000.0, 140.0)]),
            ("b".to_owned(), vec![(1_000.0, 2.0), (100_000.0, 0.5)]),
        ];
        for upright in [Upright::Even, Upright::Logarithmic] {
            let svg = lines(WORDS, upright, &series).unwrap();
            assert_eq!(svg.matches("<circle").count(), 4);
        }
    }

    #[test]
    fn time_begins_at_nothing() {
        let series = [("a".to_owned(), vec![(0.5, 1.0), (20.0, 1.02)])];
        let svg = over_time(WORDS, &series).unwrap();
        assert!(svg.contains("<polyline") && !svg.contains("<circle"));
        for tick in [">0<", ">10<", ">20<"] {
            assert!(svg.replace([' ', '\n'], "").contains(tick), "{svg}");
        }
    }

    #[test]
    fn figures_of_an_axis_are_short() {
        let shown: Vec<String> = [0.0, 0.05, 0.25, 2.0, 20.0].map(tick).into();
        assert_eq!(shown, ["0", "0.05", "0.25", "2", "20"]);
        let decades: Vec<String> = [0.1, 0.9, 1.0, 2.0, 3.0, 5.0, 90_000.0, 100_000.0]
            .map(decade_tick)
            .into();
        assert_eq!(decades, ["0.1", "", "1", "2", "", "5", "", "100000"]);
    }
}
