//! What the kernel says of this process, for the customary `process_*` metrics.
//!
//! Four short files and one directory of /proc, about twenty system calls in all, read anew for
//! each scrape: on a machine without a battery-backed clock even the start time moves, when the
//! clock is set after boot. What cannot be read is left out; nothing here fails or logs.

use std::fs::{self, File};
use std::io::Read;
use std::time::Duration;

/// What Linux has told programs on every architecture that Rust's standard library runs on.
const USUAL_TICKS_PER_SECOND: u64 = 100;
const USUAL_PAGE_SIZE_BYTES: u64 = 4096;

/// Types of entries in the auxiliary vector (linux/auxvec.h).
const AT_PAGESZ: usize = 6;
const AT_CLKTCK: usize = 17;

/// The longest of the files by far is /proc/stat, with some 100 bytes for each processor and a
/// number for each interrupt: 32 KiB on the largest servers.
const MAX_FILE_BYTES: u64 = 256 * 1024;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Process {
    /// Spent by all threads, in user mode and in the kernel.
    pub cpu_time: Option<Duration>,
    pub resident_memory_bytes: Option<u64>,
    pub virtual_memory_bytes: Option<u64>,
    pub open_fds: Option<u64>,
    /// Absent where there is no limit.
    pub max_fds: Option<u64>,
    pub threads: Option<u64>,
    /// Since the Unix epoch, by the clock as it is set now.
    pub start_time: Option<Duration>,
}

/// Reads the figures of this process.
pub fn read() -> Process {
    let auxiliary_vector = read_file("/proc/self/auxv").unwrap_or_default();
    let auxiliary = |key, usual| auxiliary_value(&auxiliary_vector, key).unwrap_or(usual);
    let ticks_per_second = auxiliary(AT_CLKTCK, USUAL_TICKS_PER_SECOND);
    let page_size_bytes = auxiliary(AT_PAGESZ, USUAL_PAGE_SIZE_BYTES);

    let stat = read_text("/proc/self/stat");
    let stat = stat.as_deref().and_then(parse_stat).unwrap_or_default();
    let duration = |ticks: Option<u64>| Some(ticks_to_duration(ticks?, ticks_per_second));
    Process {
        cpu_time: duration(stat.cpu_ticks),
        resident_memory_bytes: stat
            .resident_pages
            .and_then(|pages| pages.checked_mul(page_size_bytes)),
        virtual_memory_bytes: stat.virtual_memory_bytes,
        open_fds: count_open_fds(),
        max_fds: read_text("/proc/self/limits").and_then(|text| parse_max_fds(&text)),
        threads: stat.threads,
        start_time: start_time(boot_time(), duration(stat.started_ticks)),
    }
}

fn boot_time() -> Option<Duration> {
    parse_boot_time(&read_text("/proc/stat")?)
}

/// The start is known since boot, the boot since the epoch.
fn start_time(boot_time: Option<Duration>, since_boot: Option<Duration>) -> Option<Duration> {
    boot_time?.checked_add(since_boot?)
}

fn read_text(path: &str) -> Option<String> {
    // A process can give itself a name that is not UTF-8; no figure depends on it.
    read_file(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

fn read_file(path: &str) -> Option<Vec<u8>> {
    // Files of /proc have length 0: `fs::read` would ask for it, and then read in small steps.
    let mut bytes = Vec::with_capacity(4096);
    let file = File::open(path).ok()?;
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn count_open_fds() -> Option<u64> {
    let entries = fs::read_dir("/proc/self/fd").ok()?;
    // One of them is the directory that is being read.
    (entries.count() as u64).checked_sub(1)
}

/// The auxiliary vector is pairs of machine words: a type and a value.
fn auxiliary_value(vector: &[u8], key: usize) -> Option<u64> {
    const WORD_BYTES: usize = size_of::<usize>();
    let (words, _) = vector.as_chunks::<WORD_BYTES>();
    let (pairs, _) = words.as_chunks::<2>();
    let [_, value] = pairs
        .iter()
        .find(|[kind, _]| usize::from_ne_bytes(*kind) == key)?;
    // Zero would be no size and no rate.
    Some(usize::from_ne_bytes(*value) as u64).filter(|value| *value > 0)
}

/// Fields of /proc/self/stat, each left out where it is no number.
#[derive(Debug, Default, PartialEq, Eq)]
struct Stat {
    cpu_ticks: Option<u64>,
    threads: Option<u64>,
    /// Between boot and the start of the process.
    started_ticks: Option<u64>,
    virtual_memory_bytes: Option<u64>,
    resident_pages: Option<u64>,
}

/// Field numbers are those of proc(5), from 1.
fn parse_stat(text: &str) -> Option<Stat> {
    // The second field is the command in parentheses, and may hold spaces and parentheses.
    let (_, after_command) = text.rsplit_once(')')?;
    let fields: Vec<&str> = after_command.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3)?.parse::<u64>().ok();
    Some(Stat {
        cpu_ticks: field(14)
            .zip(field(15))
            .and_then(|(user, system)| user.checked_add(system)),
        threads: field(20),
        started_ticks: field(22),
        virtual_memory_bytes: field(23),
        resident_pages: field(24),
    })
}

/// The soft limit of open files in /proc/self/limits; none where it is `unlimited`.
fn parse_max_fds(text: &str) -> Option<u64> {
    let limits = text
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    limits.split_ascii_whitespace().next()?.parse().ok()
}

/// When the machine booted, since the epoch: the line `btime` of /proc/stat.
fn parse_boot_time(text: &str) -> Option<Duration> {
    let seconds = text.lines().find_map(|line| line.strip_prefix("btime "))?;
    seconds.trim().parse().ok().map(Duration::from_secs)
}

fn ticks_to_duration(ticks: u64, ticks_per_second: u64) -> Duration {
    let rest = u128::from(ticks % ticks_per_second);
    let nanoseconds = rest * 1_000_000_000 / u128::from(ticks_per_second);
    // Less than a second, since the rest is less than the divisor.
    Duration::new(ticks / ticks_per_second, nanoseconds as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From a real process; the command differs from test to test.
    fn stat_text(command: &str) -> String {
        format!(
            "11087 ({command}) R 11073 11073 7250 0 -1 4194304 97 0 0 0 215 38 0 0 20 0 5 0 155687 \
             3133440 360 18446744073709551615 94734153949184 94734153969065 140736339314672 0 0 0 \
             0 0 0 0 0 0 17 0 0 0 0 0 0 94734153985072 94734153986688 94734930247680 0 0 0 0 0\n"
        )
    }

    #[track_caller]
    fn check_stat(text: &str, expected: Option<Stat>) {
        assert_eq!(parse_stat(text), expected, "{text}");
    }

    #[test]
    fn figures_are_found_whatever_the_command_is_called() {
        for command in ["cat", "a b", "a) R 1 2 (b", ")", "", "(((", "\u{fffd}\n"] {
            let expected = Stat {
                cpu_ticks: Some(253),
                threads: Some(5),
                started_ticks: Some(155_687),
                virtual_memory_bytes: Some(3_133_440),
                resident_pages: Some(360),
            };
            check_stat(&stat_text(command), Some(expected));
        }
    }

    #[test]
    fn a_figure_that_is_missing_or_no_number_costs_itself_alone() {
        check_stat("", None);
        check_stat("1 (cat", None);
        check_stat("1 (cat)", Some(Stat::default()));
        let text = "1 (x) R 4 5 6 7 8 9 10 11 12 13 14 -1 16 17 18 19 2 21 22";
        let expected = Stat {
            threads: Some(2),
            started_ticks: Some(22),
            ..Stat::default()
        };
        check_stat(text, Some(expected));
    }

    #[track_caller]
    fn check_max_fds(soft_limit: &str, expected: Option<u64>) {
        let text = format!(
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max processes             96365                96365                processes \n\
             Max open files            {soft_limit:<20} 1048576              files     \n\
             Max locked memory         8388608              8388608              bytes     \n"
        );
        assert_eq!(parse_max_fds(&text), expected);
    }

    #[test]
    fn the_soft_limit_of_open_files_is_read_and_no_limit_is_no_figure() {
        check_max_fds("1024", Some(1024));
        check_max_fds("unlimited", None);
        assert_eq!(parse_max_fds(""), None);
        assert_eq!(parse_max_fds("Max open files"), None);
    }

    #[test]
    fn boot_time_stands_in_a_line_of_its_own() {
        let text = "cpu  1 2 3\nintr 99 0 7\nctxt 5\nbtime 1700000000\nprocesses 3\n";
        let expected = Some(Duration::from_secs(1_700_000_000));
        assert_eq!(parse_boot_time(text), expected);
        assert_eq!(parse_boot_time("ctxt 5\n"), None);
        assert_eq!(parse_boot_time("btime x\n"), None);
    }

    #[test]
    fn the_auxiliary_vector_is_read_in_words_of_the_machine() {
        let words = |words: &[usize]| -> Vec<u8> {
            words.iter().flat_map(|word| word.to_ne_bytes()).collect()
        };
        let vector = words(&[17, 100, 6, 16_384, 23, 0, 0, 0]);
        assert_eq!(auxiliary_value(&vector, AT_PAGESZ), Some(16_384));
        assert_eq!(auxiliary_value(&vector, AT_CLKTCK), Some(100));
        assert_eq!(auxiliary_value(&vector, 23), None);
        assert_eq!(auxiliary_value(&vector, 99), None);
        assert_eq!(auxiliary_value(&vector[..1], AT_PAGESZ), None);
        assert_eq!(auxiliary_value(&words(&[6]), AT_PAGESZ), None);
    }

    #[test]
    fn ticks_become_an_exact_duration() {
        assert_eq!(ticks_to_duration(253, 100), Duration::from_millis(2530));
        assert_eq!(ticks_to_duration(1023, 1024), Duration::new(0, 999_023_437));
        let longest = ticks_to_duration(u64::MAX, 1);
        assert_eq!(longest, Duration::from_secs(u64::MAX));
        assert_eq!(start_time(Some(longest), Some(longest)), None);
    }

    #[test]
    fn this_very_process_has_every_figure() {
        let process = read();
        assert!(process.cpu_time.is_some());
        assert!(process.resident_memory_bytes.is_some_and(|n| n > 100_000));
        assert!(process.virtual_memory_bytes >= process.resident_memory_bytes);
        assert!(process.open_fds.is_some_and(|n| n >= 3));
        assert!(process.threads.is_some_and(|n| n >= 1));
        let since_epoch = std::time::UNIX_EPOCH.elapsed().expect("a clock after 1970");
        let age = since_epoch.checked_sub(process.start_time.expect("a start"));
        // The boot time is in whole seconds, so the start may be a second off either way.
        assert!(age.is_none_or(|age| age < Duration::from_secs(3600)));
    }
}
