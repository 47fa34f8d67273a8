//! Memory by whole pages of the system: what is taken, brought in, and given back.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;

use memmap2::{MmapMut, MmapOptions};
use rustix::mm::{Advice, madvise};

/// What brings pages in, and what gives them back.  Elsewhere than on Linux both are hints: pages may come late, and
/// stay until the system needs them.
#[cfg(target_os = "linux")]
const BRING_IN: Advice = Advice::LinuxPopulateRead;
#[cfg(target_os = "linux")]
const GIVE_BACK: Advice = Advice::LinuxDontNeed;
#[cfg(not(target_os = "linux"))]
const BRING_IN: Advice = Advice::WillNeed;
#[cfg(not(target_os = "linux"))]
const GIVE_BACK: Advice = Advice::DontNeed;

/// Bytes in a page of the system.
pub fn page_bytes() -> usize {
    rustix::param::page_size()
}

/// Zeroed memory that takes space only where it was touched.
pub struct Anonymous {
    map: MmapMut,
}

impl Anonymous {
    /// At least one byte is mapped, so that an empty one has an address too.
    pub fn new(bytes: usize) -> io::Result<Anonymous> {
        Ok(Anonymous { map: MmapOptions::new().len(bytes.max(1)).no_reserve_swap().map_anon()? })
    }

    /// Where it begins.  Writing through it is for the owner of the range to order.
    pub fn start(&self) -> *mut u8 {
        self.map.as_ptr().cast_mut()
    }

    /// Gives whole pages within the range back to the system; they read as zero afterwards.
    pub fn give_back(&self, start: usize, len: usize) {
        let range = whole_pages(self.map.as_ptr() as usize + start, len);
        if cfg!(not(target_os = "linux")) {
            // There the advice leaves the bytes as they were.
            // SAFETY: within the map, and given back by the owner of the range.
            unsafe { (range.0 as *mut u8).write_bytes(0, range.1) };
        }
        advise(range, GIVE_BACK);
    }
}

/// The whole pages within `len` bytes at address `start`: (address, bytes).
pub fn whole_pages(start: usize, len: usize) -> (usize, usize) {
    let page = page_bytes();
    let first = start.next_multiple_of(page);
    let end = (start + len) / page * page;
    (first, end.saturating_sub(first))
}

/// The pages that bytes lie in, those at the edges too; pages are numbered from address 0.
pub fn pages_of(bytes: &[u8]) -> Range<usize> {
    let (page, start) = (page_bytes(), bytes.as_ptr() as usize);
    if bytes.is_empty() {
        return 0..0;
    }
    start / page..(start + bytes.len()).div_ceil(page)
}

/// Brings pages of a file mapping into memory and maps them.
pub fn bring_in_pages(pages: Range<usize>) {
    advise(addresses(pages), BRING_IN);
}

/// Unmaps pages of a read-only file mapping; the next touch reads them again.
pub fn give_back_pages(pages: Range<usize>) {
    advise(addresses(pages), GIVE_BACK);
}

fn addresses(pages: Range<usize>) -> (usize, usize) {
    (pages.start * page_bytes(), pages.len() * page_bytes())
}

/// Which pages are mapped for this process now, from `/proc/self/pagemap`.
pub struct Pagemap(File);

impl Pagemap {
    /// `None` where the system does not tell.
    pub fn open() -> Option<Pagemap> {
        Some(Pagemap(File::open("/proc/self/pagemap").ok()?))
    }

    /// How many of the pages are mapped.
    pub fn present(&mut self, pages: Range<usize>) -> Option<usize> {
        const PRESENT: u64 = 1 << 63;
        self.0.seek(SeekFrom::Start((pages.start * 8) as u64)).ok()?;
        let mut entries = vec![0u8; pages.len() * 8];
        self.0.read_exact(&mut entries).ok()?;
        let entries = entries.as_chunks::<8>().0.iter();
        Some(entries.filter(|e| u64::from_le_bytes(**e) & PRESENT != 0).count())
    }
}

/// Bytes in memory of the mappings that `bytes` lie in, all of each, as `/proc/self/smaps` has them (`Rss`).
pub fn smaps_bytes(bytes: &[u8]) -> Option<u64> {
    let asked = bytes.as_ptr_range();
    let (start, end) = (asked.start as usize, asked.end as usize);
    let (mut within, mut total) = (false, None);
    for line in std::fs::read_to_string("/proc/self/smaps").ok()?.lines() {
        let word = line.split(' ').next().unwrap_or_default();
        if let Some((first, last)) = word.split_once('-') {
            let at = |text| usize::from_str_radix(text, 16).ok();
            within = at(first)? < end && start < at(last)?;
        } else if within && let Some(kib) = line.strip_prefix("Rss:") {
            let kib: u64 = kib.trim().strip_suffix(" kB")?.parse().ok()?;
            total = Some(total.unwrap_or(0) + kib * 1024);
        }
    }
    total
}

/// What the system counts for this process, bytes: private (anonymous) and file pages; `None` where it does not tell.
pub fn process_resident_bytes() -> Option<(u64, u64)> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let kib = |key: &str| -> Option<u64> {
        let line = status.lines().find_map(|l| l.strip_prefix(key))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()
    };
    Some((kib("RssAnon:")? * 1024, kib("RssFile:")? * 1024))
}

/// Bytes that could be taken without pushing others out; `None` where the system does not tell.
pub fn free() -> Option<u64> {
    let info = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = info.lines().find_map(|l| l.strip_prefix("MemAvailable:"))?;
    Some(line.trim().strip_suffix(" kB")?.parse::<u64>().ok()? * 1024)
}

fn advise((address, bytes): (usize, usize), advice: Advice) {
    if bytes > 0 {
        // SAFETY: the range is within a mapping that the caller holds, to the edges of its pages.  Read-only file pages are read again when they
        // are touched; anonymous pages are given back only by the owner of the range, who expects zeroes.
        // Advice may be refused (an older kernel); then memory is as it was, which is correct, only not smaller.
        let _ = unsafe { madvise(address as *mut _, bytes, advice) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_pages() {
        let p = page_bytes();
        assert_eq!(whole_pages(p, 2 * p), (p, 2 * p));
        assert_eq!(whole_pages(p + 1, 2 * p), (2 * p, p));
        assert_eq!(whole_pages(p + 1, p - 1), (2 * p, 0));
        assert_eq!(whole_pages(p + 1, 3).1, 0);
    }

    #[test]
    fn given_back_memory_is_zero() {
        let memory = Anonymous::new(4 * page_bytes()).unwrap();
        // SAFETY: within the mapping, and nobody else has it.
        unsafe { *memory.start().cast::<f32>() = 5.0 };
        memory.give_back(0, page_bytes());
        // SAFETY: as above.
        assert_eq!(unsafe { *memory.start().cast::<f32>() }, 0.0);
    }
}
