//! The distribution of the starts as a picture: for each number of milliseconds, the share of starts that were done.

use anyhow::{Result, anyhow};
use plotters::prelude::*;

const SIZE: (u32, u32) = (880, 440);
/// The tail beyond this quantile would squeeze the rest; it is in the table.
const SHOWN: f64 = 0.995;
/// Told apart in grey print too.
const COLOURS: [RGBColor; 4] = [
    RGBColor(0xb4, 0x46, 0x2a),
    RGBColor(0xe0, 0xa0, 0x30),
    RGBColor(0x1f, 0x5f, 0x8b),
    RGBColor(0x6f, 0xb1, 0xd6),
];

/// An SVG of cumulative distributions, milliseconds on a logarithmic axis.
pub(crate) fn distributions(curves: &[(String, Vec<f64>)]) -> Result<String> {
    let mut svg = String::new();
    draw(&mut svg, curves).map_err(|e| anyhow!("drawing: {e}"))?;
    Ok(svg)
}

fn draw(svg: &mut String, curves: &[(String, Vec<f64>)]) -> Result<(), Box<dyn std::error::Error>> {
    let shown = |v: &[f64]| v[..((v.len() as f64 * SHOWN).ceil() as usize).min(v.len())].to_vec();
    let all: Vec<f64> = curves
        .iter()
        .flat_map(|(_, v)| shown(v))
        .filter(|x| *x > 0.0)
        .collect();
    let from = all.iter().copied().fold(f64::INFINITY, f64::min) * 0.8;
    let to = all.iter().copied().fold(0.0, f64::max) * 2.6; // room for the legend
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("click to first byte of the game", ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(56)
        .build_cartesian_2d((from..to).log_scale(), 0.0..100.0)?;
    chart
        .configure_mesh()
        .x_labels(24)
        .x_desc("milliseconds (logarithmic)")
        .y_desc("% of starts done")
        .x_label_formatter(&|x| {
            if *x < 10.0 {
                format!("{x:.1}")
            } else {
                format!("{x:.0}")
            }
        })
        .label_style(("sans-serif", 13))
        .light_line_style(WHITE)
        .draw()?;
    for ((name, values), colour) in curves.iter().zip(COLOURS) {
        let n = values.len() as f64;
        let points = shown(values)
            .into_iter()
            .enumerate()
            .map(|(at, ms)| (ms, (at + 1) as f64 * 100.0 / n));
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(name.clone())
            .legend(move |(x, y)| {
                PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(3))
            });
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE)
        .border_style(RGBColor(0xcc, 0xcc, 0xcc))
        .label_font(("sans-serif", 14))
        .draw()?;
    area.present()?;
    drop(chart);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_names_every_curve() {
        let curves = [
            ("ours".to_owned(), vec![1.0, 2.0, 3.0]),
            ("bare".to_owned(), vec![0.5, 0.6, 9.0]),
        ];
        let svg = distributions(&curves).unwrap();
        assert!(svg.starts_with("<svg") && svg.trim_end().ends_with("</svg>"));
        assert!(
            svg.contains("ours") && svg.contains("bare") && svg.matches("<polyline").count() >= 2
        );
    }
}
