// The sums of a test that is done in parts.

/** A tally of labelled files: {file, label, number} each. */
export function tally(labelled) {
  const found = {
    n: 0, right: 0, done: 0, remembered: 0, skipped: [], confusion: {}, answers: new Map(),

    /** Add what the server said of some of them. */
    add(some, report) {
      found.done += some.length;
      for (const each of some) each.judged = true;
      found.n += report.n;
      found.remembered += report.remembered ?? 0;
      found.skipped.push(...report.skipped.map((each) => each.path));
      for (const [truth, row] of Object.entries(report.confusion)) {
        const mine = (found.confusion[truth] ??= {});
        for (const [answer, count] of Object.entries(row)) {
          mine[answer] = (mine[answer] ?? 0) + count;
          if (truth === answer) found.right += count;
        }
      }
      report.mistakes.forEach((answer) => found.answers.set(Number(answer.path.split("~")[0]), answer));
      for (const path of found.skipped) found.answers.set(Number(path.split("~")[0]), null);
    },

    /** The mean over the classes of how often it is right. */
    balanced() {
      const shares = Object.entries(found.confusion).map(([truth, row]) =>
        (row[truth] ?? 0) / Object.values(row).reduce((sum, count) => sum + count, 0));
      return shares.reduce((sum, share) => sum + share, 0) / shares.length;
    },

    /** The files of one cell of the matrix; without a truth all mistakes, the surest first. */
    of(truth, answer) {
      const said = (each) => found.answers.get(each.number);
      const wanted = (each) => (truth === null ? said(each)
        : each.label === truth && (truth === answer ? !found.answers.has(each.number) : said(each)?.label === answer));
      return labelled.filter((each) => each.judged && wanted(each))
        .sort((a, b) => (said(b)?.probability ?? 0) - (said(a)?.probability ?? 0))
        .map((each) => ({ ...each, answer: found.answers.get(each.number), url: () => (each.address ??= URL.createObjectURL(each.file)) }));
    },
  };
  return found;
}
