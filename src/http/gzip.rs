//! Compression of an answer in two steps: once what many answers begin with, then for each
//! answer the rest. The result is one ordinary gzip member (RFC 1952), so that clients which
//! stop after the first one get everything.

use std::sync::Arc;

use flate2::{Compress, Compression, Crc, FlushCompress};

/// No name, no time, an unknown system, the fastest algorithm (RFC 1952, 2.3).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];
/// A last block with nothing in it (RFC 1951, 3.2.6).
const LAST_BLOCK: [u8; 2] = [3, 0];

/// The end of a full flush: the lengths of a stored block with nothing in it (RFC 1951, 3.2.4).
const FLUSH_END: [u8; 4] = [0, 0, 0xff, 0xff];

/// The compressed beginning of answers.
pub struct Beginning {
    pub bytes: Arc<Vec<u8>>,
    sum: Crc,
}

/// Keeps its tables, a third of a megabyte: making them anew takes longer than compressing the
/// metrics of a few gateways. It has none until it is used.
#[derive(Default)]
pub struct Compressor(Option<Compress>);

impl Compressor {
    /// `write` makes the text, and hands it over piece by piece.
    pub fn begin(&mut self, write: impl FnOnce(&mut dyn FnMut(&[u8]))) -> Beginning {
        let mut output = HEADER.to_vec();
        let mut sum = Crc::new();
        // Taken, so that a panic leaves no half-written stream behind.
        let mut stream = Compressor(self.0.take());
        write(&mut |piece| {
            stream.compress(piece, &mut output, FlushCompress::None);
            sum.update(piece);
        });
        stream.compress(b"", &mut output, FlushCompress::Full);
        *self = stream;
        let bytes = Arc::new(output);
        Beginning { bytes, sum }
    }

    /// What follows the beginning in an answer that goes on with this.
    pub fn finish(&mut self, beginning: &Beginning, rest: &[u8]) -> Vec<u8> {
        let mut output = Vec::new();
        self.compress(rest, &mut output, FlushCompress::Full);
        output.extend_from_slice(&LAST_BLOCK);
        let mut sum = Crc::new();
        sum.combine(&beginning.sum);
        sum.update(rest);
        output.extend_from_slice(&sum.sum().to_le_bytes());
        output.extend_from_slice(&sum.amount().to_le_bytes());
        output
    }

    /// A full flush ends at a whole byte and lets nothing after it refer to what was before: so
    /// any piece can follow any other.
    ///
    /// The fastest level: the text shrinks to a tenth with any, and a Pi has better things to do.
    fn compress(&mut self, mut plain: &[u8], output: &mut Vec<u8>, flush: FlushCompress) {
        let new = || Compress::new(Compression::fast(), false);
        let stream = self.0.get_or_insert_with(new);
        loop {
            output.reserve(1024 + plain.len() / 8);
            let before = stream.total_in();
            // It fails only after the end of a stream, which never ends here.
            let _ = stream.compress_vec(plain, output, flush);
            plain = &plain[(stream.total_in() - before) as usize..];
            let is_whole = flush == FlushCompress::None || output.ends_with(&FLUSH_END);
            if plain.is_empty() && output.len() < output.capacity() && is_whole {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use flate2::read::GzDecoder;

    use super::*;

    /// `GzDecoder` reads one member alone and checks its sum and its length.
    #[track_caller]
    fn check(compressor: &mut Compressor, beginning: &Beginning, plain: &[u8], rest: &[u8]) {
        let mut bytes = beginning.bytes.to_vec();
        bytes.extend(compressor.finish(beginning, rest));
        let mut read = Vec::new();
        let mut decoder = GzDecoder::new(bytes.as_slice());
        decoder.read_to_end(&mut read).expect("gzip");
        assert!(read == [plain, rest].concat(), "{} bytes", read.len());
        assert_eq!(decoder.into_inner(), b"");
    }

    #[test]
    fn a_panic_in_the_middle_of_a_text_does_no_harm_to_the_next_one() {
        let mut compressor = Compressor::default();
        let broken = catch_unwind(AssertUnwindSafe(|| {
            compressor.begin(|write| {
                write(b"half");
                panic!("a defect");
            })
        }));
        assert!(broken.is_err());
        let beginning = compressor.begin(|write| write(b"whole"));
        check(&mut compressor, &beginning, b"whole", b"rest");
    }

    #[test]
    fn beginning_and_rest_are_one_member() {
        let long: Vec<u8> = (0..99_999_u32)
            .flat_map(|n| n.to_string().into_bytes())
            .collect();
        let mut compressor = Compressor::default();
        for plain in [&b""[..], b"a", b"ttn_up 1\n", &long] {
            let beginning = compressor.begin(|write| plain.chunks(10_000).for_each(write));
            for rest in [&b""[..], b"b", b"ttn_up 1\n", &long[..70_000]] {
                check(&mut compressor, &beginning, plain, rest);
            }
        }
    }

    /// miniz_oxide can fill its own buffer within the flush, and goes on only when it is called again.
    #[test]
    fn a_flush_that_takes_more_than_one_call_is_whole() {
        let name = "ttn_gateway_uplink_messages_total";
        let line = |n: u32| format!("{name}{{gateway_id=\"gw-{n:05}\"}} {}\n", hash(n));
        let text: String = (0..6_000).map(line).collect();
        let mut compressor = Compressor::default();
        for length in (345_000..348_500).step_by(500) {
            let plain = &text.as_bytes()[..length];
            let beginning = compressor.begin(|write| plain.chunks(30_000).for_each(write));
            // Each of two clients gets all of it.
            for rest in [&b"ttn_up 1\n"[..], b""] {
                check(&mut compressor, &beginning, plain, rest);
            }
        }
    }

    fn hash(number: u32) -> u32 {
        number.wrapping_mul(2_654_435_761) >> 12
    }
}
