//! A setting of the C library's allocator: freed memory goes back to the system.

/// Makes every large block a mapping of its own, and all threads share one arena.
///
/// glibc would learn from the first large answer to keep such blocks, and once for each of its
/// arenas, so that a few readers of a 3 MB answer leave 50 MB behind (mallopt(3), notes on
/// `M_MMAP_THRESHOLD` and `M_ARENA_MAX`). musl, in the releases, does none of that.
#[cfg(target_env = "gnu")]
#[allow(unsafe_code)]
pub fn give_back_freed_memory() {
    const LARGE_BYTES: libc::c_int = 128 * 1024;
    // SAFETY: both take no pointer, and may be called at any time. They fail only for values
    // out of range.
    unsafe {
        libc::mallopt(libc::M_MMAP_THRESHOLD, LARGE_BYTES);
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

#[cfg(not(target_env = "gnu"))]
pub fn give_back_freed_memory() {}
