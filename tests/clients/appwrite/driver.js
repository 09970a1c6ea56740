// Calls Appwrite's SDK for Node: one command a line on stdin, its reply as a line on stdout, both JSON.
'use strict';

const readline = require('readline');
const sdk = require('node-appwrite');

async function answer({ endpoint, project, key, method, args }) {
  const users = new sdk.Users(new sdk.Client().setEndpoint(endpoint).setProject(project).setKey(key));
  try {
    // JSON has no word for an argument that is left out; null stands for it.
    const value = await users[method](...args.map((argument) => (argument === null ? undefined : argument)));
    return { value };
  } catch (error) {
    if (error.constructor.name !== 'AppwriteException') {
      throw error;
    }
    return { error: { message: error.message, code: error.code, response: error.response } };
  }
}

async function main() {
  for await (const line of readline.createInterface({ input: process.stdin })) {
    console.log(JSON.stringify(await answer(JSON.parse(line))));
  }
}

main();
