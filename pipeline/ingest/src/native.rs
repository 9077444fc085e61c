//! What the safe wrapper does not offer, first of all batch reads of one partition's queue: the one file with `unsafe`.
//!
//! librdkafka keeps fetched messages in a queue per partition. Read through the group's queue, each message costs an event object and a
//! reference count (360–380 ns); `rd_kafka_consume_batch_queue` on the partition's own queue costs 130–230 ns, and lets a slow partition
//! wait without stopping the others: librdkafka stops fetching it when its queue is full. On the *group* queue that function would swallow
//! rebalances, so it is never used there; the group queue is polled beside this one for events.

use std::ffi::{CStr, CString};
use std::os::raw::c_int;
use std::ptr::NonNull;
use std::sync::Arc;

use rdkafka::bindings as sys;
use rdkafka::consumer::base_consumer::PartitionQueue;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;

/// Most messages taken out in one call.
const BATCH: usize = 256;

/// What was in the queue. Payloads are borrowed from librdkafka for the time of the call.
pub(crate) enum Item<'a> {
    /// A message; a tombstone's payload is empty.
    Message { offset: i64, payload: &'a [u8] },
    /// Everything before this offset has been handed out, and it is the end of the log.
    End { offset: i64 },
    /// The wanted offset is not in the log. `reason` is librdkafka's, and names offsets and brokers only.
    OutOfRange { reason: String },
    /// Another error of this partition.
    Failed(RDKafkaErrorCode),
}

/// The queue of one partition, taken out of the group's queue.
pub(crate) struct BatchQueue<C: ConsumerContext> {
    raw: NonNull<sys::rd_kafka_queue_t>,
    buffer: Vec<*mut sys::rd_kafka_message_t>,
    /// Holds the queue apart from the group's queue and calls back when something comes. It also holds the consumer, so that the client
    /// outlives `raw`; it is dropped after `raw` was destroyed in `drop`.
    _split: PartitionQueue<C>,
}

// SAFETY: `raw` is a reference-counted handle that librdkafka allows to be used from any thread, one at a time (`&mut self` below);
// `buffer` holds no message between calls. `PartitionQueue` and the consumer behind it are `Send` themselves.
unsafe impl<C: ConsumerContext> Send for BatchQueue<C> where PartitionQueue<C>: Send {}

impl<C: ConsumerContext> BatchQueue<C> {
    /// Takes the queue of a partition out of the group's queue. Do this before the partition is assigned, so that no message goes the
    /// other way. `on_items` is called from librdkafka's threads when the queue stops being empty. `None` if the name cannot be one.
    pub(crate) fn split(
        consumer: &Arc<BaseConsumer<C>>,
        topic: &str,
        partition: i32,
        on_items: impl Fn() + Send + Sync + 'static,
    ) -> Option<Self> {
        let name = CString::new(topic).ok()?;
        let mut split = consumer.split_partition_queue(topic, partition)?;
        split.set_nonempty_callback(on_items);
        // SAFETY: the client pointer is valid while `consumer` lives, which `split` holds; `name` is a C string that librdkafka copies.
        let raw = unsafe { sys::rd_kafka_queue_get_partition(consumer.client().native_ptr(), name.as_ptr(), partition) };
        Some(Self { raw: NonNull::new(raw)?, buffer: Vec::with_capacity(BATCH), _split: split })
    }

    /// Hands out what is in the queue, at most 256 items, without waiting. Returns how many there were.
    pub(crate) fn drain(&mut self, mut take: impl FnMut(Item<'_>)) -> usize {
        // SAFETY: `raw` is valid until `drop`; the buffer has room for BATCH pointers, and librdkafka writes at most that many.
        let got = unsafe { sys::rd_kafka_consume_batch_queue(self.raw.as_ptr(), 0 as c_int, self.buffer.as_mut_ptr(), BATCH) };
        let count = usize::try_from(got).unwrap_or(0).min(BATCH);
        // SAFETY: librdkafka has written `count` pointers to messages that now belong to us.
        unsafe { self.buffer.set_len(count) };
        for message in self.buffer.drain(..).map(OwnedMessage) {
            take(message.item());
        }
        count
    }
}

impl<C: ConsumerContext> Drop for BatchQueue<C> {
    fn drop(&mut self) {
        // SAFETY: `raw` came from `rd_kafka_queue_get_partition` and is destroyed once; `_split` keeps the client alive until after this.
        unsafe { sys::rd_kafka_queue_destroy(self.raw.as_ptr()) };
    }
}

/// A message that goes back to librdkafka when dropped, also when the one who reads it panics.
struct OwnedMessage(*mut sys::rd_kafka_message_t);

impl OwnedMessage {
    fn item(&self) -> Item<'_> {
        // SAFETY: the pointer came from librdkafka, is not null, and is destroyed only in `drop`.
        let message = unsafe { &*self.0 };
        match RDKafkaErrorCode::from(message.err) {
            RDKafkaErrorCode::NoError if message.payload.is_null() => Item::Message { offset: message.offset, payload: &[] },
            RDKafkaErrorCode::NoError => {
                // SAFETY: librdkafka says that `len` bytes lie at `payload`; they live as long as the message, which `self` holds.
                let payload = unsafe { std::slice::from_raw_parts(message.payload.cast::<u8>(), message.len) };
                Item::Message { offset: message.offset, payload }
            }
            RDKafkaErrorCode::PartitionEOF => Item::End { offset: message.offset },
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => {
                // SAFETY: for a message with an error this is a C string that lives as long as the message; it is copied here.
                let reason = unsafe { CStr::from_ptr(sys::rd_kafka_message_errstr(self.0)) };
                Item::OutOfRange { reason: reason.to_string_lossy().into_owned() }
            }
            code => Item::Failed(code),
        }
    }
}

impl Drop for OwnedMessage {
    fn drop(&mut self) {
        // SAFETY: the pointer came from librdkafka and is destroyed once.
        unsafe { sys::rd_kafka_message_destroy(self.0) };
    }
}

/// The version of librdkafka, for reports.
pub(crate) fn librdkafka_version() -> String {
    // SAFETY: returns a static C string.
    unsafe { CStr::from_ptr(sys::rd_kafka_version_str()) }.to_string_lossy().into_owned()
}

/// Lets the groups of a mock cluster form at once, instead of waiting three seconds for further members. `host` is the client that runs
/// the cluster; without one nothing happens.
pub(crate) fn join_at_once<C: rdkafka::client::ClientContext>(host: &rdkafka::client::Client<C>) {
    // SAFETY: the client is alive; the cluster belongs to it and lives as long. The function takes the cluster's own lock.
    unsafe {
        let cluster = sys::rd_kafka_handle_mock_cluster(host.native_ptr());
        if !cluster.is_null() {
            sys::rd_kafka_mock_group_initial_rebalance_delay_ms(cluster, 0);
        }
    }
}
