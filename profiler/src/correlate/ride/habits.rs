//! How an engine moves bytes for what it does, learnt from steps whose riders are known. In: pieces of work and who rode.
//! Out: how many samples were copied back, and what prompts took. Absent: who a rider is.

use super::GpuWork;
use super::line::{Line, Ratio, Usual};
use crate::probe::Direction;

/// How an engine moves bytes.
#[derive(Debug, Default)]
pub struct Habits {
    /// Bytes to the GPU by the number of sequences, when all only generate.
    pub inputs: Line,
    /// How well each of [`SAMPLE_SIZES`] has fitted the bytes from the GPU so far.
    pub sizes: [u32; SAMPLE_SIZES.len()],
    /// Bytes that went to the GPU for a token of a prompt: for those that shared no iteration with others, and for all.
    pub alone: Usual,
    pub mixed: Ratio,
    /// Tokens of a prompt by the bytes of what asked.
    pub lengths: Line,
    /// The most bytes that went to the GPU in an iteration, and the fewest for a sequence of those that generate.
    pub most: f64,
    pub least: Option<f64>,
    /// Pieces of work for a token: one wait in an iteration is one, several are more.
    pub pieces: Option<f64>,
    /// Pieces of work that were looked at while there were requests.
    pub seen: u64,
}

/// Tokens of a prompt that is not short.
const LONG: f64 = 16.0;

/// After so many pieces of work what is not known will not be: the sizes of its copies tell nothing.
const NEW: u64 = 2048;

/// Bytes for a sequence of those that generate differ by less: what goes once, whatever the number, goes for few, too.
const SPREAD: f64 = 1.5;

/// What was fewest is forgotten slowly: by a half in 700 iterations.
const GROWTH: f64 = 1.001;

/// Bytes that a sample may have when it is copied back: 4 and 8 are token numbers, 2 is half of one.
const SAMPLE_SIZES: [u64; 4] = [2, 4, 8, 16];

/// How often a size must have fitted, and how often that is remembered; a misfit, as tokens that are held up bring it,
/// takes some away.
const FITS: u32 = 8;
const MOST_FITS: u32 = 64;
const MISFIT: u32 = 4;

impl Habits {
    /// Little was seen yet.
    pub fn is_new(&self) -> bool {
        self.seen < NEW && self.inputs.fit().is_none()
    }

    /// How many samples were copied back; none while their size is not known.
    pub fn samples(&self, work: &GpuWork) -> Option<u64> {
        let (_, bytes) = copied(work, Direction::DtoH);
        let fits = SAMPLE_SIZES.iter().zip(self.sizes).rev().find(|(_, fits)| *fits >= FITS);
        fits.filter(|(size, _)| bytes.is_multiple_of(**size)).map(|(size, _)| bytes / size)
    }

    /// Bytes that go to the GPU for a token of a prompt; none while no prompt was seen.
    pub fn prompt_bytes(&self) -> Option<f64> {
        self.alone.value().or_else(|| self.mixed.value())
    }

    /// A prompt that shared no iteration with others: short ones say more of what goes once than of their tokens.
    pub fn see_prompt(&mut self, bytes: f64, tokens: f64) {
        if tokens >= LONG {
            self.alone.see(bytes / tokens);
        }
    }

    /// Bytes to the GPU while so many generate and nobody begins: of those that only generate there are fewest.
    pub fn see_inputs(&mut self, generating: u64, bytes: f64) {
        if generating == 0 || bytes == 0.0 {
            return;
        }
        let each = bytes / generating as f64;
        let least = self.least.map_or(each, |least| (least * GROWTH).min(each));
        // What was taken for plain before was not.
        if self.least.is_some_and(|before| before > SPREAD * least) {
            self.inputs = Line::default();
        }
        self.least = Some(least);
        // One has more to itself than each of many: what goes once goes for it alone.
        if each <= SPREAD * least {
            self.inputs.see(generating as f64, bytes);
        }
    }

    /// It holds as much as one ever did, where that is much more than those that generate need.
    pub fn is_full(&self, work: &GpuWork) -> bool {
        let (_, bytes) = copied(work, Direction::HtoD);
        let plain = self.inputs.fit().map(|(height, each)| height + 32.0 * each);
        bytes as f64 >= 0.97 * self.most && plain.is_some_and(|plain| self.most > 1.2 * plain)
    }

    /// At least and at most so many samples were copied back.
    pub fn see_samples(&mut self, work: &GpuWork, (least, most): (u64, u64)) {
        let (_, bytes) = copied(work, Direction::DtoH);
        for (size, fits) in SAMPLE_SIZES.iter().zip(&mut self.sizes) {
            let fit = bytes.is_multiple_of(*size) && (least..=most).contains(&(bytes / size));
            *fits = if fit { (*fits + 1).min(MOST_FITS) } else { fits.saturating_sub(MISFIT) };
        }
    }

    /// Bytes to the GPU beyond what so many sequences that generate need, and what each of these needs.
    pub fn extra(&self, work: &GpuWork, generating: u64) -> Option<(f64, f64)> {
        let (height, each) = self.inputs.fit()?;
        let (_, bytes) = copied(work, Direction::HtoD);
        Some(((bytes as f64 - height - each * generating as f64).max(0.0), each))
    }
}

/// Count and bytes of copies in one direction.
pub fn copied(work: &GpuWork, direction: Direction) -> (u64, u64) {
    work.work.copies.get(direction as usize).copied().unwrap_or_default()
}
