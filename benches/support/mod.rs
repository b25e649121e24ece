//! What benches share: a meter around criterion, and tables of ratios.
//!
//! No figure here is a promise in seconds. Each stands beside a reference that was measured in the same run
//! on the same machine, and only the ratio is to be compared with another run's.
#![allow(dead_code, reason = "each bench uses a part")]

#[path = "../../fuzz/src/made.rs"]
pub mod made;
#[path = "../../fuzz/src/rollup.rs"]
pub mod rollup;
#[path = "../../fuzz/src/world.rs"]
pub mod world;

use criterion::{Criterion, SamplingMode, Throughput};
use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Runs measurements; under `cargo test` each one only once and small.
pub struct Meter {
    criterion: Criterion,
    quick: bool,
}

impl Meter {
    /// Reads criterion's command line.
    pub fn from_args() -> Self {
        let criterion = Criterion::default().configure_from_args().sample_size(10).without_plots();
        let quick = !std::env::args().any(|arg| arg == "--bench");
        let criterion = criterion.warm_up_time(Duration::from_millis(50)).measurement_time(Duration::from_millis(500));
        Self { criterion, quick }
    }

    /// `full`, or a hundredth of it under `cargo test`.
    pub fn size(&self, full: usize) -> usize {
        if self.quick { full.div_ceil(100) } else { full }
    }

    /// Measures `run`, which answers how long its part that counts took: the median of the samples. `None` if the
    /// command line left it out.
    pub fn measure(&mut self, group: &str, name: &str, units: u64, mut run: impl FnMut() -> Duration) -> Option<Cost> {
        let mut all = Vec::new();
        let mut group = self.criterion.benchmark_group(group);
        group.sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(units));
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|count| {
                let samples: Vec<_> = (0..count).map(|_| run()).collect();
                all.extend(&samples);
                samples.iter().sum()
            });
        });
        group.finish();
        all.sort_unstable();
        all.get(all.len() / 2).map(|time| Cost { time: *time, units })
    }
}

/// The processor time that `run` takes, which others on the machine hardly touch; its result is dropped outside of
/// that.
pub fn timed<T>(run: impl FnOnce() -> T) -> Duration {
    let start = processor_time();
    let result = std::hint::black_box(run());
    let time = processor_time().saturating_sub(start);
    drop(result);
    time
}

/// Processor time of this thread.
fn processor_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap_or_default()
}

/// What something took.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// For all of them.
    pub time: Duration,
    /// How many of whatever is counted.
    pub units: u64,
}

impl Cost {
    /// Nanoseconds for one of them.
    pub fn per_unit(&self) -> f64 {
        self.time.as_nanos() as f64 / self.units as f64
    }

    /// How many times as long as another, for one each.
    pub fn ratio(&self, to: &Cost) -> f64 {
        self.per_unit() / to.per_unit()
    }
}

/// Rows that `scripts/bench.sh` picks out of what criterion prints.
pub struct Table(Vec<Vec<String>>);

impl Table {
    /// Begins with what the columns are.
    pub fn new(columns: &[&str]) -> Self {
        Self(vec![columns.iter().map(|column| (*column).to_owned()).collect()])
    }

    /// Adds a row.
    pub fn row(&mut self, cells: &[&dyn std::fmt::Display]) {
        self.0.push(cells.iter().map(ToString::to_string).collect());
    }

    /// Prints it with even columns.
    pub fn print(&self) {
        let widest =
            |column: usize| self.0.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max();
        println!();
        for (number, row) in self.0.iter().enumerate() {
            let cells = row.iter().enumerate().map(|(column, cell)| match column {
                0 => format!("{cell:<width$}", width = widest(column).unwrap_or_default()),
                _ => format!("{cell:>width$}", width = widest(column).unwrap_or_default()),
            });
            println!("| {} |", cells.collect::<Vec<_>>().join(" | "));
            if number == 0 {
                println!(
                    "|{}|",
                    row.iter()
                        .enumerate()
                        .map(|(column, _)| "-".repeat(widest(column).unwrap_or_default() + 2))
                        .collect::<Vec<_>>()
                        .join("|")
                );
            }
        }
        println!("|");
    }
}
