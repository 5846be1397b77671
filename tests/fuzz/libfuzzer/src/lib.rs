//! What all fuzzers share: a limit of the memory that one input may take.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

pub use libfuzzer_sys;

/// Limit of the memory that is allocated while one input runs, in bytes, beside what was allocated before.
const LIMIT: usize = 256 << 20;

struct Counting;

static ALLOCATED: AtomicUsize = AtomicUsize::new(0);
static MOST: AtomicUsize = AtomicUsize::new(usize::MAX);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: passes everything on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grow(layout.size());
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        grow(size);
        ALLOCATED.fetch_sub(layout.size(), Ordering::Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn grow(size: usize) {
    let allocated = ALLOCATED.fetch_add(size, Ordering::Relaxed) + size;
    // Once: what reports it allocates as well.
    if allocated > MOST.load(Ordering::Relaxed) && MOST.swap(usize::MAX, Ordering::Relaxed) != usize::MAX {
        panic!("this input takes more than {} MiB", LIMIT >> 20);
    }
}

/// Prepares a fuzzer. Every panic ends it, also one that a runtime catches, unless the code under test catches panics.
pub fn init(target: &str) {
    if vc_fuzz::target(target).catches_panics {
        std::panic::set_hook(Box::new(|_| {}));
    }
}

/// Runs one input within the limit.
pub fn run(target: fn(&[u8]), data: &[u8]) {
    MOST.store(ALLOCATED.load(Ordering::Relaxed) + LIMIT, Ordering::Relaxed);
    target(data);
    MOST.store(usize::MAX, Ordering::Relaxed);
}

/// Defines the fuzzer of a target.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        static TARGET: std::sync::LazyLock<fn(&[u8])> =
            std::sync::LazyLock::new(|| vc_fuzz::target($name).run);
        $crate::libfuzzer_sys::fuzz_target!(init: $crate::init($name), |data: &[u8]| $crate::run(*TARGET, data));
    };
}
