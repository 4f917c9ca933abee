# Part of _decode.pyx: choosing the next tokens of one text, and what the steps of many texts know of each.


cdef class DecodeLoop:
    """Chooses the tokens of one DecodeState, step by step.

    Args:
        state: `_core.DecodeState`, before its first commit.
        before_scores, after_scores, after_choice: called before the score pipeline with the state, between it and
            the choice of tokens with the state and the scores [rows, vocab_size] to change in place, and before the
            choice is committed with the state; None where there is nothing to do. after_choice returns extra stops,
            one bool per candidate.
        no_token_left: makes the error for a row of which all tokens were removed; None: a NumericalError.
    """

    cdef DecodeState* decode
    cdef bint is_hooked
    cdef object state, before_scores, after_scores, after_choice, no_token_left

    def __init__(self, state, *, before_scores=None, after_scores=None, after_choice=None, no_token_left=None):
        self.decode = <DecodeState*>PyCapsule_GetPointer(state._capsule(), "sabiyarn_edge.DecodeState")
        self.state = state  # owns what `decode` points to
        self.before_scores, self.after_scores, self.after_choice = before_scores, after_scores, after_choice
        self.no_token_left = no_token_left
        self.is_hooked = not (before_scores is None and after_scores is None and after_choice is None)

    def select(self, size_t logits_address) -> bool:
        """Choose the next tokens; returns whether every row has ended.

        Args:
            logits_address: of float32 [rows, vocab_size], C order, which are overwritten.

        Raises:
            NumericalError: a row's scores are NaN or leave no token to choose.
            Exception: the latter, as no_token_left makes it.
        """
        self.choose(<float*>logits_address)
        return self.decode.finished()

    cdef int choose(self, float* logits) except -1:
        if self.before_scores is not None:
            self.before_scores(self.state)
        with nogil:
            self.decode.process(logits)
        if self.after_scores is not None:
            self.after_scores(self.state, np.asarray(
                <float[:self.decode.num_rows(), :self.decode.vocab_size()]>logits))
        try:
            with nogil:
                self.decode.propose(logits)
        except ValueError as error:
            raise self.explained(error)
        if self.after_choice is None:
            with nogil:
                self.decode.commit()
        else:
            self.state.commit(self.after_choice(self.state))
        return 0

    cdef object explained(self, error):
        """The error to raise for the core's std::invalid_argument, which names the row."""
        if self.no_token_left is not None and self.decode.no_token_left():
            found = self.no_token_left()
        else:
            found = NumericalError(
                f"{error}. The options may forbid every token. If not: {WHY_NAN}"
            )
        found.__cause__ = error
        return found

    def run(self, backend) -> None:
        """Select and compute until every row has ended.

        Args:
            backend: has `logits_address`, and `compute(state)`, which fills these logits for the state's next tokens.
        """
        while not self.select(backend.logits_address):
            backend.compute(self.state)


cdef class SteadyText:
    """A text of which each row runs its next token, step by step, while nothing else is to be done.

    Args:
        work: whose text it is; its attribute `abandoned` ends the steps.
        loop: its DecodeLoop.
        rows: its engine.rows.Row objects, in the order of the loop's rows.
        masks: for each of them what writes its tokens' mask, as GraphRunner.run() takes it; None: causal.
        tell: called after each choice; None: nobody is told.
        num_steps: after so many new tokens something else is to be done; at least 1.
        guesser: `_core.Guesser`, for a text of one row; None: nothing is guessed.
        shares_room: with a guesser: whether its guesses are among the runner's common_guesses.
        positions: with a guesser: most tokens that the row may hold.
    """

    cdef readonly object work
    cdef readonly object error
    """What choosing or telling raised, or None."""
    cdef DecodeLoop loop
    cdef list rows, held, masks
    cdef vector[int64_t] places
    cdef object tell, owner
    cdef Guesser* guesser
    cdef int64_t num_steps, positions, guessed
    cdef bint shares_room

    def __init__(self, work, DecodeLoop loop not None, list rows, *, list masks=None, tell=None, int64_t num_steps,
                 guesser=None, bint shares_room=False, int64_t positions=0):
        self.work, self.loop, self.tell, self.num_steps = work, loop, tell, num_steps
        self.rows, self.masks, self.positions, self.shares_room = rows, masks, positions, shares_room
        self.held = [row.tokens for row in rows]
        for row in rows:
            self.places.push_back(row.index)
        if guesser is not None:
            self.owner = guesser
            self.guesser = <Guesser*>PyCapsule_GetPointer(guesser._capsule(), "sabiyarn_edge.Guesser")

    cdef bint is_plain(self):
        """Whether its choice calls nothing of Python's, and is one."""
        return not self.loop.is_hooked and self.guessed == 0

    cdef int64_t num_tokens(self):
        """Tokens of the next run."""
        return <int64_t>self.places.size() + self.guessed

    cdef bint note_choice(self) except -1:
        """Note that tokens were chosen. Returns whether the guess for that place was right, which was run or not."""
        cdef bint right = False
        self.num_steps -= 1
        if self.guesser != NULL and not self.loop.decode.finished():
            right = self.guesser.note(<int32_t>self.loop.decode.next_tokens()[0])
        if self.tell is not None:
            self.tell()
        return right


cdef int64_t num_rows_of(list texts) except -1:
    cdef int64_t count = 0
    cdef SteadyText text
    for text in texts:
        count += <int64_t>text.places.size()
    return count


cdef int64_t num_tokens_of(list texts) except -1:
    cdef int64_t count = 0
    cdef SteadyText text
    for text in texts:
        count += text.num_tokens()
    return count
