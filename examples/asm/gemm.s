; c[M, N] = a[M, K] @ b[K, N], int8 with exact int32 sums, in tiles of TN columns.
;
;   llmcc run examples/asm/gemm.s --input a=a.npy --input b=b.npy --output c=c.npy
;
; Double buffering: weights, sums and staged results have two buffers each, which `vinc` takes in turns (i % 2). The
; dispatcher runs ahead of the engines, so that in the steady state four of them work on different tiles:
;
;   LDW   b2    b3   ...           loads tile i+2 into the buffer that mm i has left
;   MXU   mm1   mm2                multiplies
;   VEC   mov0  mov1               moves sums from the accumulators to SRAM
;   STO         c0   c1            stores them
;
; A count "mxu<=1" on an instruction reads: all instructions of MXU dispatched before me are complete, except at most the last one.
.chip "edge"
.equ M=64, K=128, N=256, TN=32
.equ TILES=N/TN
.equ W_STEP=K*TN, S_STEP=M*TN*4         ; from one buffer of a pair to the other, in bytes

.entry name=main, pc=main
.input name=a, shape=[M, K], dtype=int8
.input name=b, shape=[K, N], dtype=int8
.output name=c, shape=[M, N], dtype=int32

.buffer name=left, space=sram, bytes=M*K
.buffer name=weights, space=sram, bytes=2*W_STEP
.buffer name=sums, space=acc, bytes=2*S_STEP
.buffer name=staging, space=sram, bytes=2*S_STEP

.equ A_DRAM=v1, B_DRAM=v2, C_DRAM=v3    ; view registers by name
.equ A=v4, W=v5, S=v6, OUT=v7

main:
  vset v=A_DRAM, space=dram, region=in, dtype=i8, base=a, rs=K
  vset v=A, space=sram, dtype=i8, base=left, rs=K
  lda d=A, a=A_DRAM, rows=M, cols=K

  vset v=B_DRAM, space=dram, region=in, dtype=i8, base=b, rs=N
  vinc v=B_DRAM, level=0, inc=TN                    ; the next columns of b
  vset v=W, space=sram, dtype=i8, base=weights, rs=TN
  vinc v=W, level=0, inc=W_STEP, mod=2              ; ping, pong
  vset v=S, space=acc, dtype=i32, base=sums, rs=TN
  vinc v=S, level=0, inc=S_STEP, mod=2
  vset v=OUT, space=sram, dtype=i32, base=staging, rs=TN
  vinc v=OUT, level=0, inc=S_STEP, mod=2
  vset v=C_DRAM, space=dram, region=out, dtype=i32, base=c, rs=N
  vinc v=C_DRAM, level=0, inc=TN*4

  loop level=0, len=done, count=TILES
    ldw d=W, a=B_DRAM, rows=K, cols=TN @ mxu<=1                   ; mm i-2 has read this buffer; mm i-1 may be running
    mm c=S, a=A, w=W, m=M, n=TN, k=K @ ldw<=0, lda<=0, vec<=1     ; mov i-2 has emptied these sums
    vop f=mov, d=OUT, a=S, rows=M, cols=TN @ mxu<=0, sto<=1       ; the store of tile i-2 has read this staging buffer
    sto d=C_DRAM, a=OUT, rows=M, cols=TN @ vec<=0
done:
  halt
