process.on("message", (text) => process.send(text.toUpperCase(), () => process.exit(0)));
