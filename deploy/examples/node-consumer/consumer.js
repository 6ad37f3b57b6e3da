// Reads normalized Stripe events from a topic of stripe-ingest. README.md beside this file says how to run it.
import { Kafka, logLevel } from 'kafkajs';

const brokers = (process.env.KAFKA_BROKERS ?? '127.0.0.1:9092').split(',');
const topic = process.env.TOPIC ?? 'stripe.payments';
const groupId = process.env.GROUP_ID ?? 'example-node';

const SCHEMA_VERSION = 1;
const SEEN_MAX = 100_000;

// What this service does with each object type. The fields are those of the JSON Schemas; statuses are open sets, so
// whatever is not named here is passed over, as are object types and fields that a later release adds.
const handlers = {
  payment_intent: ({ data }) => {
    if (data.status === 'succeeded') console.log(`paid      ${data.payment_intent_id} ${money(data, 'amount_received_minor')}`);
  },
  charge: ({ data }) => {
    if (data.status === 'failed') console.log(`declined  ${data.charge_id} ${data.decline_code ?? data.failure_code}`);
  },
  checkout_session: ({ data }) => {
    console.log(`checkout  ${data.checkout_session_id} is ${data.status}, ${data.payment_status}`);
  },
  dispute: ({ data }) => {
    console.log(`dispute   ${data.dispute_id} of ${data.charge_id} is ${data.status}`);
  },
};

// Stripe's amounts are integers in the currency's minor unit. JSON.parse makes doubles of them: beyond 2^53 one would
// already be another number, so it is refused here rather than booked wrongly. From here on it is a BigInt, for sums.
function minor(data, field) {
  const amount = data[field] ?? null;
  if (amount !== null && !Number.isSafeInteger(amount)) throw new RangeError(`${field} is no safe integer`);
  return amount === null ? null : BigInt(amount);
}

function money(data, field) {
  const amount = minor(data, field);
  return amount === null ? '-' : `${amount} ${data.currency} (minor units)`;
}

// Records come at least once: after a crash, a rebalance or a delivery that Stripe repeats, some come again. This
// memory ends with the process. Where handling twice would hurt, keep ce_id in the same database transaction as the
// work, under a unique key, and let the insert decide.
class Seen {
  #ids = new Set();

  has(id) {
    return this.#ids.has(id);
  }

  add(id) {
    this.#ids.add(id);
    if (this.#ids.size > SEEN_MAX) this.#ids.delete(this.#ids.values().next().value);
  }
}

const seen = new Seen();
const counts = { handled: 0, passedOver: 0, duplicates: 0 };

async function handle(message) {
  const header = (name) => message.headers[name]?.toString();
  const id = header('ce_id');
  if (seen.has(id)) {
    counts.duplicates += 1;
    return;
  }
  const event = JSON.parse(message.value.toString());
  if (event.schema_version !== SCHEMA_VERSION) throw new Error(`schema version ${event.schema_version} is not known`);
  // The schema says what `data` is; the event's type says what has happened. A thin event names an object without
  // carrying it, and has the schema `other` whatever it names.
  const [, , , , schema] = header('ce_dataschema').split(':');
  const handler = Object.hasOwn(handlers, schema) ? handlers[schema] : undefined;
  await handler?.(event);
  counts[handler ? 'handled' : 'passedOver'] += 1;
  seen.add(id);
}

const kafka = new Kafka({ clientId: 'example-node', brokers, logLevel: logLevel.WARN });
const consumer = kafka.consumer({ groupId });

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, async () => {
    await consumer.disconnect(); // the record in hand is finished and committed first
    console.log(counts);
  });
}

// KafkaJS starts again by itself after what may pass. After what will not, whoever runs this process must know.
consumer.on(consumer.events.CRASH, ({ payload }) => {
  if (!payload.restart) process.exitCode = 1;
});

await consumer.connect();
await consumer.subscribe({ topic, fromBeginning: true });
await consumer.run({
  autoCommit: false,
  eachMessage: async ({ topic, partition, message }) => {
    await handle(message);
    // After the work, never before: what is not committed comes again, what is committed too early is lost.
    await consumer.commitOffsets([{ topic, partition, offset: (BigInt(message.offset) + 1n).toString() }]);
  },
});
