//! Outcomes as SVG files.

use std::error::Error;
use std::path::{Path, PathBuf};

use plotters::prelude::*;

use super::Outcome;
use super::report::Report;

type Result<T> = std::result::Result<T, Box<dyn Error>>;
/// Its name, and its points.
type Line = (String, Vec<(f64, f64)>);

const SIZE: (u32, u32) = (800, 480);
/// One kind of plot.
#[derive(Clone, Copy)]
struct Plot {
    name: &'static str,
    title: &'static str,
    axes: [&'static str; 2],
    points: fn(&Outcome) -> Vec<(f64, f64)>,
    scale: f64,
}

const PLOTS: [Plot; 3] = [
    Plot {
        name: "detection",
        title: "declared dead",
        axes: ["seconds since the crash", "% of pairs"],
        points: |outcome| outcome.detection.clone(),
        scale: 100.0,
    },
    Plot {
        name: "convergence",
        title: "lists that tell the truth",
        axes: ["seconds", "% of pairs"],
        points: |outcome| {
            outcome.samples.iter().map(|sample| (sample.at, sample.agreement)).collect()
        },
        scale: 100.0,
    },
    Plot {
        name: "bytes",
        title: "UDP payload per member",
        axes: ["seconds", "bytes per second"],
        points: |outcome| outcome.samples.iter().map(|sample| (sample.at, sample.bytes)).collect(),
        scale: 1.0,
    },
];

/// A line for each seed in turn.
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 90, 181),
    RGBColor(220, 50, 32),
    RGBColor(0, 130, 80),
    RGBColor(150, 80, 170),
    RGBColor(230, 150, 0),
    RGBColor(90, 90, 90),
];

/// What the plots of each of these files are called, if they are run with these options: no two alike,
/// though files in two folders may be.
#[must_use]
pub fn names(files: &[PathBuf], options: &str) -> Vec<String> {
    let options = options.replace(" --", "-").replace(' ', "-");
    let mut names: Vec<String> = Vec::new();
    for file in files {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let numbers = (2..).map(|number| format!("{stem}-{number}{options}"));
        let mut all = std::iter::once(format!("{stem}{options}")).chain(numbers);
        names.extend(all.find(|name| !names.contains(name)));
    }
    names
}

/// Draws what there is to draw into `folder`, under names that begin with `stem`: how long detection
/// takes, convergence and bytes over time. Returns the names of the files.
///
/// # Errors
///
/// If a file cannot be written.
pub fn draw(report: &Report, folder: &Path, stem: &str) -> Result<Vec<String>> {
    let lines = |of: fn(&Outcome) -> Vec<(f64, f64)>| -> Vec<Line> {
        let line = |outcome: &Outcome| (format!("seed {}", outcome.seed), of(outcome));
        report.outcomes.iter().map(line).collect()
    };
    let plots = PLOTS.into_iter().map(|plot| (plot, lines(plot.points)));
    let title = format!("{}{}", report.file, report.options);
    let files = plots_of(&title, stem, plots.collect(), folder)?;
    Ok(files.iter().map(|file| folder.join(file).display().to_string()).collect())
}

/// Draws both of a pair into each plot, the first seed of each. Returns the names of the files within the folder.
pub(super) fn compare(
    stem: &str,
    arms: &[(&'static str, &[Outcome]); 2],
    folder: &Path,
) -> Result<Vec<String>> {
    let lines = |of: fn(&Outcome) -> Vec<(f64, f64)>| -> Vec<Line> {
        let first = arms.iter().filter_map(|(name, outcomes)| Some((*name, outcomes.first()?)));
        first.map(|(name, outcome)| (name.to_owned(), of(outcome))).collect()
    };
    let plots = PLOTS.into_iter().map(|plot| (plot, lines(plot.points)));
    plots_of(stem, stem, plots.collect(), folder)
}

fn plots_of(
    title: &str,
    stem: &str,
    plots: Vec<(Plot, Vec<Line>)>,
    folder: &Path,
) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for (plot, lines) in plots {
        if lines.iter().all(|(_, points)| points.is_empty()) {
            continue;
        }
        let file = format!("{stem}-{}.svg", plot.name);
        let title = format!("{title}: {}", plot.title);
        chart(&folder.join(&file), &title, plot.axes, &lines, plot.scale)?;
        files.push(file);
    }
    Ok(files)
}

fn chart(file: &Path, title: &str, axes: [&str; 2], lines: &[Line], scale: f64) -> Result<()> {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let right = points().map(|(x, _)| *x).fold(0.0, f64::max).max(1e-3);
    let top = points().map(|(_, y)| y * scale).fold(0.0, f64::max).max(1e-3) * 1.05;
    let root = SVGBackend::new(file, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..right, 0.0..top)?;
    chart.configure_mesh().x_desc(axes[0]).y_desc(axes[1]).light_line_style(WHITE).draw()?;
    for ((name, points), color) in lines.iter().zip(COLORS.iter().cycle()) {
        let line = points.iter().map(|&(x, y)| (x, y * scale));
        chart
            .draw_series(LineSeries::new(line, color.stroke_width(2)))?
            .label(name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    if lines.len() <= COLORS.len() {
        let mut legend = chart.configure_series_labels();
        legend.border_style(BLACK.mix(0.3)).background_style(WHITE.mix(0.8)).draw()?;
    }
    root.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_files_have_plots_of_one_name() {
        let files = ["a/crash.toml", "b/crash.toml", "b/crash-2.toml", "c/crash.toml", "loss.toml"];
        let files = files.map(PathBuf::from);
        let expected = ["crash", "crash-2", "crash-2-2", "crash-3", "loss"];
        assert_eq!(names(&files, ""), expected);
        let expected = expected.map(|name| format!("{name}-nodes-9-quick"));
        assert_eq!(names(&files, " --nodes 9 --quick"), expected);
    }
}
