//! The frame rate of a lesson's grid, from the times of the recording's pictures.
//!
//! Containers name a rate that their first seconds fit. Recordings that stand still at first, or that a camera slowed
//! down in the dark, move faster later: the grid must hold the pictures of the liveliest stretch.

use lyceum_packaging::FrameRate;
use lyceum_packaging::grid::STANDARD_RATES;

/// The length of a stretch whose pictures are judged together, in microseconds.
const STRETCH_US: i64 = 10_000_000;
/// A stretch suffers when it loses more pictures than these, and more than this part of them, beyond those that the
/// highest rate loses too.
const MAX_LOST: usize = 3;
const MAX_LOST_PART: f64 = 0.01;
/// One stretch in this many may suffer: a burst after a stall is no rate.
const STRETCHES_PER_EXCEPTION: usize = 200;
/// Rates that differ by less than this part are told apart by how well the pictures fit them.
const ALIKE: f64 = 0.035;
/// The highest rate of a grid.
const HIGHEST: FrameRate = FrameRate::new(60, 1);

/// The rate for pictures at `runs` of times in microseconds, each contiguous. The rate that the container names (`base`,
/// `average`) is kept where it loses no stretch's pictures; else the lowest that does not is taken.
pub(super) fn choose(runs: &mut [Vec<i64>], base: Option<FrameRate>, average: Option<FrameRate>) -> FrameRate {
    let named = FrameRate::constant(base, average);
    runs.iter_mut().for_each(|run| run.sort_unstable());
    let origin = runs.iter().filter_map(|run| run.first()).min().copied().unwrap_or(0);
    let stretches: Vec<&[i64]> = runs.iter().flat_map(|run| stretches(run)).collect();
    let grid = Grid { origin, stretches };
    if grid.holds(named) {
        return named;
    }
    let mut rates: Vec<FrameRate> = STANDARD_RATES.to_vec();
    rates.extend(average.map(thousandths));
    rates.extend(grid.liveliest());
    rates.retain(|rate| rate.fps() > named.fps() && rate.fps() <= HIGHEST.fps());
    rates.sort_by(|a, b| a.fps().total_cmp(&b.fps()));
    let Some(lowest) = rates.iter().copied().find(|rate| grid.holds(*rate)) else { return HIGHEST };
    let alike = rates.into_iter().filter(|rate| (lowest.fps()..=lowest.fps() * (1.0 + ALIKE)).contains(&rate.fps()));
    alike.min_by(|a, b| grid.misfit(*a).total_cmp(&grid.misfit(*b))).unwrap_or(lowest)
}

/// The same rate in thousandths of a frame a second, as averages are fractions of any size.
fn thousandths(rate: FrameRate) -> FrameRate {
    FrameRate::new((rate.fps() * 1000.0).round().clamp(1.0, 1e6) as u32, 1000).standardised()
}

/// Divides a sorted run.
fn stretches(run: &[i64]) -> impl Iterator<Item = &[i64]> {
    let start = run.first().copied().unwrap_or(0);
    run.chunk_by(move |a, b| (a - start).div_euclid(STRETCH_US) == (b - start).div_euclid(STRETCH_US))
}

struct Grid<'a> {
    origin: i64,
    stretches: Vec<&'a [i64]>,
}

impl Grid<'_> {
    fn place(&self, at: i64, rate: FrameRate) -> f64 {
        at.saturating_sub(self.origin) as f64 * rate.fps() / 1e6
    }

    /// How many pictures of a stretch share a frame of the grid with the picture before.
    fn lost(&self, stretch: &[i64], rate: FrameRate) -> usize {
        let mut last = f64::NEG_INFINITY;
        let shared = |at: &&i64| {
            let place = (self.place(**at, rate) + 0.5).floor();
            std::mem::replace(&mut last, place) == place
        };
        stretch.iter().filter(shared).count()
    }

    /// Whether a grid of `rate` holds the pictures.
    fn holds(&self, rate: FrameRate) -> bool {
        let suffers = |stretch: &&&[i64]| {
            let most = MAX_LOST.max((stretch.len() as f64 * MAX_LOST_PART) as usize);
            let lost = self.lost(stretch, rate);
            lost > most && lost - self.lost(stretch, HIGHEST).min(lost) > most
        };
        self.stretches.iter().filter(suffers).count() <= self.stretches.len() / STRETCHES_PER_EXCEPTION
    }

    /// The mean distance of the pictures from frames of the rate that begin with each stretch, in frames.
    fn misfit(&self, rate: FrameRate) -> f64 {
        let (mut sum, mut count) = (0.0, 0u32);
        for stretch in &self.stretches {
            let first = stretch.first().map_or(0.0, |first| self.place(*first, rate));
            for at in *stretch {
                let place = self.place(*at, rate) - first;
                (sum, count) = (sum + (place - place.round()).abs(), count.saturating_add(1));
            }
        }
        sum / f64::from(count.max(1))
    }

    /// The mean rate of a stretch that has more pictures than most.
    fn liveliest(&self) -> Option<FrameRate> {
        let mut means: Vec<f64> = self.stretches.iter().filter_map(|stretch| mean_rate(stretch)).collect();
        means.sort_unstable_by(f64::total_cmp);
        let fps = means.get(means.len() * 9 / 10)?;
        Some(thousandths(FrameRate::new((fps * 1000.0).round().clamp(1.0, 1e6) as u32, 1000)))
    }
}

fn mean_rate(stretch: &[i64]) -> Option<f64> {
    let length = stretch.last()?.checked_sub(*stretch.first()?)?;
    (length > STRETCH_US / 8).then(|| (stretch.len() - 1) as f64 * 1e6 / length as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Times of pictures at `fps` for `seconds`, from `start` seconds on, rounded to `unit` microseconds.
    fn pictures(start: f64, fps: f64, seconds: f64, unit: f64) -> Vec<i64> {
        let count = (fps * seconds).round() as u32;
        (0..count).map(|n| (((start + f64::from(n) / fps) * 1e6 / unit).round() * unit) as i64).collect()
    }

    fn rate(num: u32, den: u32) -> FrameRate {
        FrameRate::new(num, den)
    }

    #[test]
    fn a_named_rate_that_fits_is_kept() {
        for (fps, named) in [(25.0, rate(25, 1)), (30_000.0 / 1001.0, rate(30_000, 1001)), (1.0, rate(1, 1))] {
            let times = pictures(3.0, fps, 120.0, 1000.0);
            assert_eq!(choose(&mut [times], Some(named), Some(named)), named);
        }
        // Every second picture: the container's rate is higher than needed, and harmless.
        assert_eq!(choose(&mut [pictures(0.0, 25.0, 60.0, 1.0)], Some(rate(50, 1)), None), rate(50, 1));
        assert_eq!(choose(&mut [pictures(0.0, 240.0, 60.0, 1.0)], Some(rate(240, 1)), Some(rate(240, 1))), rate(60, 1));
    }

    #[test]
    fn the_liveliest_stretch_decides() {
        let grows = |slow: f64, fast: f64, unit: f64| {
            let mut times = pictures(0.0, slow, 20.0, unit);
            times.extend(pictures(20.0, fast, 12.0, unit));
            times
        };
        let named = |fps: u32| Some(rate(fps, 1));
        assert_eq!(choose(&mut [grows(15.0, 30.0, 1.0)], named(15), Some(rate(41, 2))), rate(30, 1));
        assert_eq!(choose(&mut [grows(1.0, 30.0, 1000.0)], named(1), Some(rate(4, 1))), rate(30, 1));
        assert_eq!(choose(&mut [grows(4.0, 30_000.0 / 1001.0, 100.0)], named(4), None), rate(30_000, 1001));
        assert_eq!(choose(&mut [grows(10.0, 58.24, 1.0)], named(10), None), rate(58_240, 1000));
        // As separate looks into a long file, out of order as B-frames are.
        let mut late = pictures(600.0, 60.0, 2.0, 1000.0);
        late.reverse();
        assert_eq!(choose(&mut [pictures(0.0, 15.0, 2.0, 1000.0), late], named(15), None), rate(60, 1));
    }

    #[test]
    fn a_rate_between_two_standards_drops_no_pictures() {
        for fps in [58.24, 29.5, 30.4, 26.3, 13.7] {
            let mut times = [pictures(0.0, fps, 60.0, 1.0)];
            let average = thousandths(rate((fps * 100.0).round() as u32, 100));
            for base in [None, Some(rate(90_000, 1)), Some(average)] {
                let chosen = choose(&mut times, base, Some(average));
                let origin = times[0][0];
                let lost = Grid { origin, stretches: vec![] }.lost(&times[0], chosen);
                assert!(lost * 200 <= times[0].len(), "{fps}: {lost} lost at {}", chosen.fps());
            }
        }
    }

    #[test]
    fn a_burst_after_a_stall_is_no_rate() {
        let mut times = pictures(0.0, 15.0, 2400.0, 1.0);
        times.extend((0..40).map(|n| 600_020_000 + n * 20_000));
        assert_eq!(choose(&mut [times], Some(rate(15, 1)), Some(rate(15, 1))), rate(15, 1));
        assert_eq!(choose(&mut [vec![]], None, None), rate(25, 1));
        assert_eq!(choose(&mut [], Some(rate(12, 1)), None), rate(12, 1));
    }
}
