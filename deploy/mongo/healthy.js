// Initiates the replica set of one node when it is new, and fails until that node is its primary.
try {
  rs.status();
} catch (error) {
  if (error.codeName !== "NotYetInitialized") throw error;
  rs.initiate({ _id: "rs0", members: [{ _id: 0, host: process.env.ADVERTISED }] });
}
if (!db.hello().isWritablePrimary) quit(1);
