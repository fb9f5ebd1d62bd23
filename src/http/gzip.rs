//! Compression of an answer in two steps: once what many answers begin with, then for each
//! answer the rest. The result is one ordinary gzip member (RFC 1952), so that clients which
//! stop after the first one get everything.

use std::io::Write;
use std::sync::Arc;

use flate2::write::DeflateEncoder;
use flate2::{Compression, Crc};

/// No name, no time, an unknown system, the fastest algorithm (RFC 1952, 2.3).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 4, 255];

/// The compressed beginning of answers.
pub struct Beginning {
    /// Ends at a whole byte, so that more can follow.
    pub bytes: Arc<Vec<u8>>,
    sum: Crc,
}

/// Keeps its tables, a third of a megabyte: making them anew takes longer than compressing the
/// metrics of a few gateways. It has none until it is used.
#[derive(Default)]
pub struct Compressor(Option<DeflateEncoder<Vec<u8>>>);

impl Compressor {
    pub fn begin(&mut self, plain: &[u8]) -> Beginning {
        let encoder = self.encoder();
        let mut output = Vec::with_capacity(HEADER.len() + plain.len() / 8);
        output.extend_from_slice(&HEADER);
        *encoder.get_mut() = output;
        // Writing into memory cannot fail.
        let _ = encoder.write_all(plain).and_then(|()| encoder.flush());
        let bytes = Arc::new(std::mem::take(encoder.get_mut()));
        // What this adds would be the end.
        let _ = encoder.reset(Vec::new());
        let mut sum = Crc::new();
        sum.update(plain);
        Beginning { bytes, sum }
    }

    /// What follows the beginning in an answer that goes on with this.
    pub fn finish(&mut self, beginning: &Beginning, rest: &[u8]) -> Vec<u8> {
        let encoder = self.encoder();
        // As above.
        let _ = encoder.write_all(rest);
        let mut bytes = encoder.reset(Vec::new()).unwrap_or_default();
        let mut sum = Crc::new();
        sum.combine(&beginning.sum);
        sum.update(rest);
        bytes.extend_from_slice(&sum.sum().to_le_bytes());
        bytes.extend_from_slice(&sum.amount().to_le_bytes());
        bytes
    }

    /// The fastest level: the text shrinks to a tenth with any, and a Pi has better things to do.
    fn encoder(&mut self) -> &mut DeflateEncoder<Vec<u8>> {
        let new = || DeflateEncoder::new(Vec::new(), Compression::fast());
        self.0.get_or_insert_with(new)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

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
    fn beginning_and_rest_are_one_member() {
        let long: Vec<u8> = (0..99_999_u32)
            .flat_map(|n| n.to_string().into_bytes())
            .collect();
        let mut compressor = Compressor::default();
        for plain in [&b""[..], b"a", b"ttn_up 1\n", &long] {
            let beginning = compressor.begin(plain);
            for rest in [&b""[..], b"b", b"ttn_up 1\n", &long[..70_000]] {
                check(&mut compressor, &beginning, plain, rest);
            }
        }
    }
}
