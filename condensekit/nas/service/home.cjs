// Loaded into NNI's manager before it starts: what NNI keeps in the user's home goes into the search's own folder.
"use strict";
const folder = process.env.CONDENSEKIT_NNI_FOLDER;
if (folder) require("os").homedir = () => folder;
