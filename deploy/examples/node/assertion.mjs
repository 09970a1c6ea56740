// Verifies assertions of usersd, one on each line of standard input: assertion.mjs JWKS_URL ISSUER AUDIENCE.
import { createInterface } from 'node:readline'
import { createRemoteJWKSet, errors, jwtVerify } from 'jose'

const [address, issuer, audience] = process.argv.slice(2)
// Keeps the keys for five minutes, and asks again for a key that it does not know.
const keys = createRemoteJWKSet(new URL(address), { cacheMaxAge: 300_000, timeoutDuration: 5_000 })
const rules = { issuer, audience, algorithms: ['EdDSA'], requiredClaims: ['exp', 'iat', 'sub', 'sid', 'ns'] }

// The claims of a valid assertion; throws for any other.
const claims = async assertion => (await jwtVerify(assertion, keys, rules)).payload

for await (const line of createInterface({ input: process.stdin })) {
  try {
    const { ns, sub } = await claims(line.trim())
    console.log('accepted', ns, sub)
  } catch (error) {
    if (!(error instanceof errors.JOSEError)) throw error
    console.log('refused')
  }
}
