//! The message that is being written: with DATA it passes through, in chunks (RFC 3030) a part of
//! it is held.

use super::{Chunk, Stuffer};
use crate::proto::Output;
use crate::proto::transaction::Framing;

/// A message on its way into the output.
#[derive(Debug)]
pub(in crate::proto) struct OutgoingMessage {
    stuffer: Stuffer,
    /// The newest piece of a message that is one chunk. With its last byte the message is whole to
    /// the server, so the last piece waits until it is known to be the last.
    last_piece: Option<Chunk>,
    /// The chunk that is being filled, of several. Its size goes before it.
    chunk: Output,
}

impl OutgoingMessage {
    pub(in crate::proto) fn new(stuffer: Stuffer) -> Self {
        OutgoingMessage {
            stuffer,
            last_piece: None,
            chunk: Output::default(),
        }
    }

    /// The bytes that were written or are held in a chunk, without added dots and the final one.
    pub(in crate::proto) fn bytes(&self) -> u64 {
        self.stuffer.bytes()
    }

    /// The bytes that are held in the chunk that is being filled.
    pub(in crate::proto) fn chunk_len(&self) -> usize {
        self.chunk.len()
    }

    pub(in crate::proto) fn is_verbatim(&self) -> bool {
        self.stuffer.is_verbatim()
    }

    /// Adds a piece of the message.
    pub(in crate::proto) fn push(&mut self, piece: Chunk, framing: Framing, output: &mut Output) {
        match framing {
            Framing::Data => self.stuffer.push(piece, output),
            Framing::HeldChunk(_) | Framing::Chunks => self.stuffer.push(piece, &mut self.chunk),
            Framing::Chunk(_) if piece.bytes().is_empty() => {}
            Framing::Chunk(_) => {
                if let Some(before) = self.last_piece.replace(piece) {
                    self.stuffer.push(before, output);
                }
            }
        }
    }

    /// Adds the end of the message. Of several chunks, the last one is held yet.
    pub(in crate::proto) fn finish(&mut self, framing: Framing, output: &mut Output) {
        if let Some(last) = self.last_piece.take() {
            self.stuffer.push(last, output);
        }
        match framing {
            Framing::HeldChunk(_) | Framing::Chunks => self.stuffer.finish(&mut self.chunk),
            Framing::Data | Framing::Chunk(_) => self.stuffer.finish(output),
        }
    }

    /// Moves the first bytes of the chunk into the output.
    pub(in crate::proto) fn move_chunk(&mut self, bytes: usize, output: &mut Output) {
        self.chunk.move_to(bytes, output);
    }

    /// Drops what is held: no more of the message is written.
    pub(in crate::proto) fn discard(&mut self) {
        self.last_piece = None;
        self.chunk.clear();
    }
}
