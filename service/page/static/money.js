// Amounts for people. The rule and the table are those of service/money.py; a test holds the two against each other.

const ZERO = "bif clp djf gnf jpy kmf krw mga pyg rwf vnd vuv xaf xof xpf".split(" ");
const THREE = "bhd jod kwd omr tnd".split(" ");
const EXPONENTS = new Map([...ZERO.map((code) => [code, 0]), ...THREE.map((code) => [code, 3])]);

/** `12.34 EUR`; null where no currency tells the decimals, or the number is too great to be exact. */
export function formatMinor(minor, currency) {
  if (!Number.isSafeInteger(minor) || typeof currency !== "string" || !/^[A-Za-z]{3}$/.test(currency)) return null;
  const exponent = EXPONENTS.get(currency.toLowerCase()) ?? 2;
  // By digits, not by division: an amount and its decimal are the same number.
  const digits = String(Math.abs(minor)).padStart(exponent + 1, "0");
  const whole = digits.slice(0, digits.length - exponent);
  const decimals = exponent ? `.${digits.slice(-exponent)}` : "";
  return `${minor < 0 ? "-" : ""}${whole}${decimals} ${currency.toUpperCase()}`;
}
