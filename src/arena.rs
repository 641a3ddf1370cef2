//! Memory for key material: locked into RAM, left out of core dumps, wiped in a forked child, and
//! wiped when the last holder lets go.
//!
//! The arena hands out fixed slots of [`MATERIAL_LEN`] bytes. A slot is written once, before anyone
//! else sees it, and only read from then on; it is wiped and reused when its guard is dropped, never
//! sooner. A guard therefore cannot be zeroised while someone seals with it.
//!
//! This is the only module with `unsafe`. It never parses, never calls out, and never prints a byte
//! of what it holds.
#![expect(
    unsafe_code,
    reason = "locked, non-dumpable pages are handed out as slots; no safe API maps them"
)]

use crate::dek::{MATERIAL_LEN, Material};
use rustix::mm::{MapFlags, ProtFlags};
use std::fmt;
use std::io;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use zeroize::Zeroize;

/// Bytes mapped at a time: a whole number of pages on every platform with pages of up to 16 KiB,
/// and small enough for the 64 KiB that containers are often allowed to lock.
const CHUNK_LEN: usize = 16 * 1024;

/// Slots in one chunk (170).
const SLOTS_PER_CHUNK: usize = CHUNK_LEN / MATERIAL_LEN;

type Bytes = [u8; MATERIAL_LEN];

/// A growing set of protected pages, shared by cloning.
#[derive(Clone)]
pub struct Arena {
    pages: Arc<Pages>,
}

struct Pages {
    slots: Mutex<Slots>,
    /// False as soon as one chunk could not be protected in full.
    locked: AtomicBool,
}

#[derive(Default)]
struct Slots {
    chunks: Vec<NonNull<u8>>,
    free: Vec<NonNull<Bytes>>,
    held: usize,
}

// SAFETY: the pointers are to pages that this value owns until it is dropped, and every access to the
// lists goes through the mutex around them.
unsafe impl Send for Slots {}

impl Arena {
    /// Maps the first chunk, so that [`Arena::locked`] is known from the start.
    ///
    /// # Errors
    /// The operating system has no memory left.
    pub fn new() -> io::Result<Arena> {
        let pages = Pages {
            slots: Mutex::default(),
            locked: AtomicBool::new(true),
        };
        pages.grow(&mut pages.slots())?;
        Ok(Arena {
            pages: Arc::new(pages),
        })
    }

    /// Whether all pages so far are locked into RAM, left out of core dumps and wiped on fork. False
    /// (as when RLIMIT_MEMLOCK is too low) is no error: the arena goes on, and says so here.
    pub fn locked(&self) -> bool {
        self.pages.locked.load(Ordering::Relaxed)
    }

    /// Slots handed out at this moment.
    pub fn held(&self) -> usize {
        self.pages.slots().held
    }

    /// Takes a slot and lets `fill` write it, in place. The slot is all zeros before.
    ///
    /// # Errors
    /// The operating system has no memory left.
    pub fn hold<T>(&self, fill: impl FnOnce(&mut Bytes) -> T) -> io::Result<(Slot, T)> {
        let at = {
            let mut slots = self.pages.slots();
            let at = match slots.free.pop() {
                Some(at) => at,
                None => {
                    self.pages.grow(&mut slots)?;
                    slots.free.pop().ok_or(io::ErrorKind::OutOfMemory)?
                }
            };
            slots.held += 1;
            at
        };
        // The guard exists before `fill` runs: a panic in there returns the slot, wiped.
        let mut slot = Slot {
            at,
            pages: Arc::clone(&self.pages),
        };
        // SAFETY: `at` came off the free list, so this guard is its only holder, and it is borrowed
        // mutably here. The memory is mapped, aligned for bytes and initialised (zero pages, or wiped).
        let filled = fill(unsafe { slot.at.as_mut() });
        Ok((slot, filled))
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena")
            .field("held", &self.held())
            .field("locked", &self.locked())
            .finish()
    }
}

/// One slot: readable while it is held, wiped when it is dropped.
pub struct Slot {
    at: NonNull<Bytes>,
    pages: Arc<Pages>,
}

// SAFETY: a slot has one holder; through a shared reference its bytes are only read.
unsafe impl Send for Slot {}
// SAFETY: as above.
unsafe impl Sync for Slot {}

impl Material for Slot {
    fn expose(&self) -> &Bytes {
        // SAFETY: mapped and initialised for as long as `pages` lives, which this guard keeps alive;
        // no one writes to it before the guard is dropped.
        unsafe { self.at.as_ref() }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // SAFETY: the only holder is going; nobody else can reach these bytes.
        unsafe { self.at.as_mut() }.zeroize();
        let mut slots = self.pages.slots();
        slots.held -= 1;
        slots.free.push(self.at);
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Slot(..)")
    }
}

impl Pages {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        // The lists are consistent after every statement; a panic elsewhere does not spoil them.
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn grow(&self, slots: &mut Slots) -> io::Result<()> {
        // SAFETY: a fresh private mapping at an address of the kernel's choice.
        let start = unsafe {
            rustix::mm::mmap_anonymous(
                ptr::null_mut(),
                CHUNK_LEN,
                ProtFlags::READ | ProtFlags::WRITE,
                MapFlags::PRIVATE,
            )
        }?;
        // SAFETY: exactly the mapping above.
        let protected = unsafe { protect(start) };
        if protected.is_err() {
            self.locked.store(false, Ordering::Relaxed);
        }
        let chunk = NonNull::new(start.cast::<u8>()).ok_or(io::ErrorKind::OutOfMemory)?;
        slots.chunks.push(chunk);
        slots.free.reserve(SLOTS_PER_CHUNK);
        for index in (0..SLOTS_PER_CHUNK).rev() {
            // SAFETY: index * MATERIAL_LEN + MATERIAL_LEN is within the chunk.
            slots
                .free
                .push(unsafe { chunk.add(index * MATERIAL_LEN) }.cast());
        }
        Ok(())
    }
}

/// # Safety
/// `start` is a mapping of [`CHUNK_LEN`] bytes that belongs to the caller.
unsafe fn protect(start: *mut std::ffi::c_void) -> io::Result<()> {
    // SAFETY: the caller's mapping; locking it has no effect on its contents.
    let locked = unsafe { rustix::mm::mlock(start, CHUNK_LEN) };
    #[cfg(target_os = "linux")]
    {
        use rustix::mm::{Advice, madvise};
        // SAFETY: the caller's mapping, still all zeros; neither advice changes it in this process.
        unsafe {
            madvise(start, CHUNK_LEN, Advice::LinuxDontDump)?;
            madvise(start, CHUNK_LEN, Advice::LinuxWipeOnFork)?;
        }
    }
    Ok(locked?)
}

impl Drop for Pages {
    fn drop(&mut self) {
        // Every slot held an `Arc` to this value: all are back, and wiped.
        for chunk in self.slots().chunks.drain(..) {
            // SAFETY: a mapping made in `grow`, of this length; no slot of it is held any more.
            // A failure would leave it mapped, and wiped.
            let _ = unsafe { rustix::mm::munmap(chunk.as_ptr().cast(), CHUNK_LEN) };
        }
    }
}

/// Tells the kernel that this process makes no core dump and cannot be attached to by others of
/// the same user (`prctl(PR_SET_DUMPABLE, 0)`). For the start of `main`.
///
/// # Errors
/// The kernel refused.
pub fn forbid_core_dumps() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    rustix::process::set_dumpable_behavior(rustix::process::DumpableBehavior::NotDumpable)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(arena: &Arena, byte: u8) -> Slot {
        arena.hold(|bytes| bytes.fill(byte)).unwrap().0
    }

    /// What the memory of the slot that will be handed out next holds now.
    fn peek_next(arena: &Arena) -> Bytes {
        let slots = arena.pages.slots();
        let next = *slots.free.last().unwrap();
        // SAFETY: on the free list: mapped, and nobody writes while the lists are locked.
        unsafe { *next.as_ref() }
    }

    #[test]
    fn a_slot_keeps_what_was_written() {
        let arena = Arena::new().unwrap();
        let (slot, length) = arena
            .hold(|bytes| {
                assert_eq!(*bytes, [0; MATERIAL_LEN]);
                bytes.fill(7);
                bytes.len()
            })
            .unwrap();
        assert_eq!(length, MATERIAL_LEN);
        assert_eq!(*slot.expose(), [7; MATERIAL_LEN]);
        assert_eq!(arena.held(), 1);
    }

    #[test]
    fn a_dropped_slot_is_wiped_and_used_again() {
        let arena = Arena::new().unwrap();
        let slot = filled(&arena, 0xAB);
        let address = slot.at;
        drop(slot);
        assert_eq!(arena.held(), 0);
        assert_eq!(peek_next(&arena), [0; MATERIAL_LEN]);
        let again = filled(&arena, 1);
        assert_eq!(again.at, address);
    }

    #[test]
    fn slots_do_not_overlap_and_chunks_are_added() {
        let arena = Arena::new().unwrap();
        let slots: Vec<Slot> = (0..SLOTS_PER_CHUNK * 3 + 1)
            .map(|n| filled(&arena, n as u8))
            .collect();
        for (n, slot) in slots.iter().enumerate() {
            assert_eq!(*slot.expose(), [n as u8; MATERIAL_LEN], "slot {n}");
        }
        assert_eq!(arena.pages.slots().chunks.len(), 4);
        drop(slots);
        assert_eq!(arena.held(), 0);
        let _one = filled(&arena, 1);
        assert_eq!(
            arena.pages.slots().chunks.len(),
            4,
            "no growth while slots are free"
        );
    }

    #[test]
    fn a_panic_while_filling_returns_the_slot_wiped() {
        let arena = Arena::new().unwrap();
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _ = arena.hold(|bytes| {
                bytes.fill(9);
                panic!("in the middle");
            });
        }));
        assert!(caught.is_err());
        assert_eq!(arena.held(), 0);
        assert_eq!(peek_next(&arena), [0; MATERIAL_LEN]);
    }

    #[test]
    fn slots_outlive_the_arena_value() {
        let arena = Arena::new().unwrap();
        let slot = filled(&arena, 3);
        drop(arena);
        assert_eq!(*slot.expose(), [3; MATERIAL_LEN]);
    }

    #[test]
    fn threads_hold_and_release_at_once() {
        let arena = Arena::new().unwrap();
        std::thread::scope(|scope| {
            for byte in 1..=4u8 {
                let arena = arena.clone();
                scope.spawn(move || {
                    for _ in 0..2_000 {
                        let slot = filled(&arena, byte);
                        assert_eq!(*slot.expose(), [byte; MATERIAL_LEN]);
                    }
                });
            }
        });
        assert_eq!(arena.held(), 0);
    }

    #[test]
    fn debug_prints_no_byte() {
        let arena = Arena::new().unwrap();
        let slot = filled(&arena, 0x5A);
        assert_eq!(format!("{slot:?}"), "Slot(..)");
        assert!(!format!("{arena:?}").contains("90"));
    }

    /// The kernel's own account of the mapping: `lo` locked, `dd` not dumped, `wf` wiped on fork.
    #[cfg(target_os = "linux")]
    #[test]
    fn the_kernel_knows_the_pages_as_protected() {
        let arena = Arena::new().unwrap();
        let slot = filled(&arena, 1);
        let address = slot.at.as_ptr() as usize;
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut within = false;
        let mut flags = None;
        for line in smaps.lines() {
            if let Some((range, _)) = line.split_once(' ')
                && let Some((from, to)) = range.split_once('-')
                && let (Ok(from), Ok(to)) = (
                    usize::from_str_radix(from, 16),
                    usize::from_str_radix(to, 16),
                )
            {
                within = (from..to).contains(&address);
            } else if within && let Some(found) = line.strip_prefix("VmFlags:") {
                flags = Some(found.split_whitespace().collect::<Vec<_>>());
            }
        }
        let flags = flags.expect("the mapping is listed");
        assert_eq!(
            arena.locked(),
            ["lo", "dd", "wf"].iter().all(|flag| flags.contains(flag)),
            "{flags:?}"
        );
        assert!(flags.contains(&"dd") && flags.contains(&"wf"), "{flags:?}");
    }
}
